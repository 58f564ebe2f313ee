"""`loopanimate-train --stage N`: start or resume a run. It has no command name of its own."""

from __future__ import annotations

import argparse
import sys

from loopanimate_core.errors import LoopAnimateError

from ..stages import RUNS
from .options import add_run_options, resolve_run


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=run)
    add_run_options(parser, required=False)
    parser.add_argument("--dry-run", action="store_true", help="print the resolved run, then stop")
    parser.add_argument(
        "--help-config", action="store_true", help="print every setting of a run, then stop"
    )
    parser.add_argument(
        "--allow-change", action="store_true", help="resume a run with changed settings or data"
    )
    parser.add_argument(
        "--resume-from",
        type=int,
        metavar="STEP",
        help="go back to the checkpoint of this step; later ones are moved to the folder `later` of the run",
    )
    parser.add_argument(
        "--launcher",
        choices=("ray",),
        help="run on the workers of a Ray cluster, or of this machine",
    )
    parser.add_argument("--workers", type=int, default=1, help="number of Ray workers (default 1)")


def run(options: argparse.Namespace) -> int:
    if options.help_config:
        from ..config.describe import describe_config

        print(describe_config())
        return 0
    if options.stage is None:
        raise LoopAnimateError(f"--stage is missing; choose one of {', '.join(RUNS)}")
    if options.dry_run:
        from .dry_run import PLACEHOLDERS, describe_run

        print(describe_run(resolve_run(options, PLACEHOLDERS)))
        return 0
    config = resolve_run(options)
    from ..loop import train

    if options.launcher == "ray":
        from ..distributed.ray import train_on_ray

        if options.resume_from is not None:
            from ..storage.checkpoint import go_back

            go_back(config.out, options.resume_from)
        outcome = train_on_ray(train, config, options.workers, allow_change=options.allow_change)
    else:
        outcome = train(config, allow_change=options.allow_change, resume_from=options.resume_from)
    if outcome.exit_code:
        saved = "" if outcome.saved else ", which is NOT saved"
        print(
            f"stopped at step {outcome.step}{saved} of {config.steps}; the same command resumes the run",
            file=sys.stderr,
        )
    return outcome.exit_code
