"""`loopanimate-train index`: make the index of a data set. Training does the same on first use."""

from __future__ import annotations

import argparse

from .inspect import resolve_target, stages_of
from .options import Commands, add_data_options, add_shard_option


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "index", help="probe every clip of a data set; training does it on first use"
    )
    parser.set_defaults(run=run)
    add_data_options(parser)
    add_shard_option(
        parser,
        "only examine the I-th of N shares, on one of N machines with the same data.index; then run once without it",
    )


def run(options: argparse.Namespace) -> int:
    from ..data.index.build import open_index, probe_share
    from ..data.shard import Shard

    stage = stages_of(options.target, options.stage)[0]  # the index is the same for all stages
    for data in resolve_target(options.target, stage, options.set).data.sets:
        if options.shard is not None:
            count = probe_share(data, Shard.parse(options.shard))
            print(f"share {options.shard}: {count:,} clips of {data.path} are examined")
            continue
        table = open_index(data)
        print(f"{table.path}: {len(table):,} clips")
    return 0
