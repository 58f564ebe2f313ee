"""`loopanimate-train report`: a run's curves, loops and settings as one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import Commands


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("report", help="write a run's curves and loops as one HTML page")
    parser.set_defaults(run=run)
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("-o", "--output", type=Path, help="the page (default: RUN/report.html)")


def run(options: argparse.Namespace) -> int:
    from ..run.report import write_page

    print(write_page(options.run_folder, options.output))
    return 0
