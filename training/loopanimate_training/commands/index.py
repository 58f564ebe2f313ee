"""`loopanimate-train index`: make the index of a data set. Training does the same on first use."""

from __future__ import annotations

import argparse

from .inspect import resolve_target, stages_of
from .options import Commands, add_data_options


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "index", help="probe every clip of a data set; training does it on first use"
    )
    parser.set_defaults(run=run)
    add_data_options(parser)


def run(options: argparse.Namespace) -> int:
    from ..data.index.build import open_index

    stage = stages_of(options.target, options.stage)[0]  # the index is the same for all stages
    for data in resolve_target(options.target, stage, options.set).data.sets:
        table = open_index(data)
        print(f"{table.path}: {len(table):,} clips")
    return 0
