"""`loopanimate-train`: train a stage, fill its cache, export a bundle."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn, TypeAlias

from loopanimate_core.errors import LoopAnimateError

from .stages import RUNS, table_rows

EPILOG = """\
  loopanimate-train --stage 1 --config run.yaml            train, or go on with, a run
  loopanimate-train --stage 1 --config run.yaml --dry-run  print the resolved run and what it trains
  loopanimate-train plan --stage 3                         memory it will take; nothing is downloaded
  loopanimate-train inspect clips                          what a data set holds, and what is left out
  loopanimate-train cache --stage 1 --config run.yaml      encode all clips first
  loopanimate-train export RUN -o model.safetensors        averaged weights as a bundle
  loopanimate-train report RUN                             its curves, loops and settings as one page
  accelerate launch -m loopanimate_training --stage 1 …    several processes or machines

SIGTERM, Ctrl-C or a file `save_quit` in the run's folder end the step, save and exit with 143, 130 or 75
(74: the disk was full, not saved); a file `save` saves. The same command resumes the run.

stages, and variants of them:
  """ + "\n  ".join(table_rows())


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command; exits with 0, with 1 after a mistake of the user's, or with 128 + signal."""
    options = _parser().parse_args(arguments)
    try:
        code = options.run(options)
        sys.stdout.flush()  # so that a closed pipe is noticed here
    except LoopAnimateError as error:
        code = _say(str(error), 1)
    except KeyboardInterrupt:
        code = _say("interrupted; the same command goes on from what is saved", 130)
    except BrokenPipeError:
        # The reader left (`| head`). Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        code = _say(f"{where}{error.strerror or error}", 1)
    sys.exit(code)


def _say(message: str, code: int) -> int:
    """Print one line; returns the exit code that goes with it."""
    print(f"loopanimate-train: {message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="loopanimate-train", description=__doc__, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _add_train_options(parser)
    commands = parser.add_subparsers(
        title="other commands", metavar="{plan,inspect,index,cache,report,export}"
    )
    _add_plan(commands)
    _add_inspect(commands)
    _add_index(commands)
    _add_cache(commands)
    _add_report(commands)
    _add_export(commands)
    return parser


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_train)
    _add_run_options(parser, required=False)
    parser.add_argument("--dry-run", action="store_true", help="print the resolved run, then stop")
    parser.add_argument(
        "--allow-change",
        action="store_true",
        help="resume a run although its settings have changed",
    )
    parser.add_argument(
        "--launcher",
        choices=("ray",),
        help="run on the workers of a Ray cluster, or of this machine",
    )
    parser.add_argument("--workers", type=int, default=1, help="how many Ray workers (default 1)")


def _add_plan(commands: Commands) -> None:
    planner = commands.add_parser("plan", help="predict the memory that a run will take")
    planner.set_defaults(run=_plan)
    _add_run_options(planner, required=True)
    planner.add_argument(
        "--frames",
        type=int,
        nargs="+",
        default=[],
        metavar="F",
        help="clip lengths (default: 71 141)",
    )
    planner.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="cards that share batch.size (default 1)",
    )
    planner.add_argument(
        "--measure", action="store_true", help="take two steps on the GPU instead, and time them"
    )


def _add_inspect(commands: Commands) -> None:
    inspect = commands.add_parser(
        "inspect", help="count the clips of a data set by what becomes of them"
    )
    inspect.set_defaults(run=_inspect)
    _add_data_options(inspect)
    inspect.add_argument(
        "--list", type=Path, metavar="FILE", help="write the clips left out, a JSON line each"
    )


def _add_index(commands: Commands) -> None:
    index = commands.add_parser("index", help="examine a data set; training does it on first use")
    index.set_defaults(run=_index)
    _add_data_options(index)


def _add_cache(commands: Commands) -> None:
    cache = commands.add_parser("cache", help="encode all clips of a run into its cache")
    cache.set_defaults(run=_cache)
    _add_run_options(cache, required=True)
    cache.add_argument(
        "--shard", default="1/1", metavar="I/N", help="only the I-th of N shares of the clips"
    )


def _add_report(commands: Commands) -> None:
    reporter = commands.add_parser("report", help="write a run's curves and loops as one HTML page")
    reporter.set_defaults(run=_report)
    reporter.add_argument("run_folder", type=Path, metavar="RUN", help="a run's folder")
    reporter.add_argument("-o", "--output", type=Path, help="the page (default: RUN/report.html)")


def _add_export(commands: Commands) -> None:
    export = commands.add_parser(
        "export", help="write a checkpoint's averaged weights as a bundle, a delta or a LoRA"
    )
    export.set_defaults(run=_export)
    export.add_argument(
        "checkpoint", type=Path, help="a checkpoint, or a run's folder for its newest"
    )
    export.add_argument("-o", "--output", type=Path, required=True, help="the file to write")
    only = export.add_mutually_exclusive_group()
    only.add_argument(
        "--delta-of", type=Path, metavar="BUNDLE", help="write only what changed since this bundle"
    )
    only.add_argument("--lora", action="store_true", help="write the adapters of a model.lora run")
    export.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", type=Path, help="settings of a run (.yaml), a folder, a table or a tar"
    )
    parser.add_argument(
        "--stage", metavar="N", help="one stage (default: that of the settings, or all)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.NAME=VALUE",
        help="one setting; repeatable",
    )


def _add_run_options(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument(
        "--stage", metavar="N", required=required, help=f"row of the stage table: {', '.join(RUNS)}"
    )
    parser.add_argument("--config", type=Path, help="YAML file laid over the stage's row")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.NAME=VALUE",
        help="one setting; repeatable",
    )


def _train(options: argparse.Namespace) -> int:
    from .config import resolve

    if options.stage is None:
        raise LoopAnimateError(f"say which stage to train: --stage {', '.join(RUNS)}")
    config = resolve(options.stage, options.config, options.set)
    if options.dry_run:
        from .commands.dry_run import describe_run

        print(describe_run(config))
        return 0
    if options.launcher == "ray":
        from .distributed.ray import train_on_ray

        outcome = train_on_ray(config, options.workers, allow_change=options.allow_change)
    else:
        from .loop import train

        outcome = train(config, allow_change=options.allow_change)
    if outcome.exit_code:
        saved = "" if outcome.saved else ", which is NOT saved"
        print(
            f"stopped at step {outcome.step}{saved} of {config.steps}; the same command goes on",
            file=sys.stderr,
        )
    return outcome.exit_code


def _plan(options: argparse.Namespace) -> int:
    from .commands.plan import PLACEHOLDERS, measure, plan
    from .config import resolve

    config = resolve(options.stage, options.config, options.set, PLACEHOLDERS)
    print((measure if options.measure else plan)(config, options.frames, options.processes))
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from .commands.inspect import survey

    print(survey(options.target, options.stage, options.set, options.list))
    return 0


def _index(options: argparse.Namespace) -> int:
    from .commands.inspect import resolve_target, stages_of
    from .data.index.build import open_index

    stage = stages_of(options.target, options.stage)[0]  # an index is the same for all
    table = open_index(resolve_target(options.target, stage, options.set).data)
    print(f"{table.path}: {len(table):,} clips")
    return 0


def _cache(options: argparse.Namespace) -> int:
    from .commands.cache import Shard, fill_cache
    from .config import resolve

    config = resolve(options.stage, options.config, options.set)
    filled = fill_cache(config, Shard.parse(options.shard), say=print)
    print(f"{filled.windows} windows are in the cache, {filled.bad_clips} clips could not be read")
    if filled.signal_number:
        print("stopped; the same command goes on", file=sys.stderr)
        return 128 + filled.signal_number
    return 0


def _report(options: argparse.Namespace) -> int:
    from .run.report import write_page

    print(write_page(options.run_folder, options.output))
    return 0


def _export(options: argparse.Namespace) -> int:
    import torch

    from .model.export import export_bundle, export_delta, export_lora

    dtype = getattr(torch, options.dtype)
    if options.lora:
        step = export_lora(options.checkpoint, options.output, dtype)
    elif options.delta_of is not None:
        step = export_delta(options.checkpoint, options.output, options.delta_of, dtype)
    else:
        step = export_bundle(options.checkpoint, options.output, dtype)
    print(f"{options.output}: step {step}")
    return 0
