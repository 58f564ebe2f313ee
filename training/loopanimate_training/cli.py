"""The command `loopanimate-train`; each of its commands is a file in `commands/`."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from loopanimate_core.cli.run import run_command
from loopanimate_core.exit_codes import ExitCode

from .commands import ablate, cache, curate, export, index, inspect, plan, report, train
from .stages import table_rows

PROGRAM = "loopanimate-train"
COMMANDS = (plan, inspect, curate, index, cache, report, export, ablate)
EPILOG = """\
  loopanimate-train --stage 1 --config run.yaml            start or resume a run
  loopanimate-train --stage 1 --config run.yaml --dry-run  print the resolved run and what it trains
  loopanimate-train --help-config                          every setting of a run
  loopanimate-train plan --stage 3                         memory of a run; nothing is downloaded
  loopanimate-train inspect clips                          what a data set holds, and which clips are skipped
  loopanimate-train curate clips -o salient.parquet        choose clips with one moving object, for stages 2 and 3
  loopanimate-train cache --stage 1 --config run.yaml      encode all clips before training
  loopanimate-train export RUN -o model.safetensors        averaged weights as a bundle
  loopanimate-train report RUN                             curves, loops and settings as one page
  loopanimate-train ablate routing --data clips -o work   train and compare the rows of the paper's Table 4
  loopanimate-train --stage 1 --config run.yaml --resume-from 12000
                                                           go back to an older checkpoint
  accelerate launch -m loopanimate_training --stage 1 …    several processes or machines

SIGTERM, SIGHUP, Ctrl-C or a file `save_quit` in the run's folder end the run after the current step, save, and
exit with 143, 129, 130 or 75 (74: the disk was full, the step is not saved). A file `save` only saves. The same
command resumes the run.

stages and their variants:
  """ + "\n  ".join(table_rows())


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit (codes: `loopanimate_core.exit_codes`; 1 after a user error)."""
    options = build_parser().parse_args(arguments)
    code = run_command(
        PROGRAM,
        lambda: options.run(options),
        user_error=ExitCode.FAILED,
        interrupted="interrupted; the same command continues from what is saved",
    )
    sys.exit(code)


def build_parser() -> argparse.ArgumentParser:
    """Training without a command name, and the other commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Train LoopAnimate in three stages, and export what was trained.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_options(parser)
    names = ",".join(command.__name__.rpartition(".")[2] for command in COMMANDS)
    commands = parser.add_subparsers(title="other commands", metavar=f"{{{names}}}")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser
