"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..stages import RUNS

if TYPE_CHECKING:
    from ..config import RunConfig

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_run_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """`--stage`, `--config` and `--set`, which describe a run."""
    parser.add_argument(
        "--stage", metavar="N", required=required, help=f"row of the stage table: {', '.join(RUNS)}"
    )
    parser.add_argument("--config", type=Path, help="YAML file that replaces settings of the row")
    add_set_option(parser)


def add_set_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.NAME=VALUE",
        help="replace one setting; may be repeated",
    )


def add_shard_option(
    parser: argparse.ArgumentParser, text: str = "only the I-th of N shares of the clips"
) -> None:
    """`--shard`; read it with `Shard.parse`."""
    parser.add_argument("--shard", metavar="I/N", help=text)


def resolve_run(options: argparse.Namespace, defaults: dict[str, Any] | None = None) -> RunConfig:
    """The run that the options describe.

    Raises:
        LoopAnimateError: as `config.resolve`.
    """
    from ..config import resolve

    return resolve(options.stage, options.config, options.set, defaults)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """A data set, and the stage to look at it for."""
    parser.add_argument(
        "target",
        type=target_path,
        help="settings of a run (.yaml), or a folder, table or tar with clips; also a URL, such as s3://bucket/clips",
    )
    parser.add_argument(
        "--stage", metavar="N", help="one stage (default: the one in the settings, or all)"
    )
    add_set_option(parser)


def target_path(text: str) -> Path:
    """The path of a data set or of settings on the command line; `data_path`, whose imports take time, only for URLs."""
    if "://" not in text:
        return Path(text)
    from ..remote import data_path

    return data_path(text)
