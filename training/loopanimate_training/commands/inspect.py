"""`loopanimate-train inspect`: what a data set holds, and which clips each stage can use."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopanimate_core.errors import LoopAnimateError

from ..stages import STAGES
from .options import Commands, add_data_options

if TYPE_CHECKING:
    from ..config import RunConfig

SETTINGS_SUFFIXES = (".yaml", ".yml")


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "inspect", help="count the clips of a data set that can be used, and why others cannot"
    )
    parser.set_defaults(run=run)
    add_data_options(parser)
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="write the skipped clips, a JSON line each"
    )


def run(options: argparse.Namespace) -> int:
    from ..data.survey import survey

    stages = stages_of(options.target, options.stage)
    configs = {name: resolve_target(options.target, name, options.set) for name in stages}
    print(survey(configs, options.list))
    return 0


def stages_of(target: Path, stage: str | None) -> list[str]:
    """The stages to look at: `stage`, else the one in a settings file, else all."""
    if stage is None and target.suffix.lower() in SETTINGS_SUFFIXES:
        from ..config import stage_in

        stage = stage_in(target)
    return [stage] if stage is not None else [str(number) for number in STAGES]


def resolve_target(target: Path, stage: int | str, overrides: list[str]) -> RunConfig:
    """The run of a settings file, or a run over nothing but a folder, a table or a tar.

    Raises:
        LoopAnimateError: `target` does not exist, or the settings are wrong.
    """
    from ..config import resolve

    if target.suffix.lower() in SETTINGS_SUFFIXES:
        file, data = target, {}
    elif target.exists():
        file, data = None, {"source": guess_source(target), "path": target}
    else:
        raise LoopAnimateError(f"{target} does not exist")
    # Settings that training needs and an inspection does not.
    defaults: dict[str, Any] = {"out": ".", "model": {"start": "."}, "data": data}
    config = resolve(stage, file, overrides, defaults)
    if any(one.source == "mini" for one in config.data.sets):
        raise LoopAnimateError(
            "data.source is mini, which draws its clips: there is nothing to inspect"
        )
    return config


def guess_source(path: Path) -> str:
    """`frames` for a folder that holds pictures and no videos, else `videos`."""
    from ..data.readers.rows import PICTURE_SUFFIXES, VIDEO_SUFFIXES
    from ..data.readers.tables import TABLE_SUFFIXES
    from ..remote import walk

    if not path.is_dir():
        return "videos"
    found: set[str] = set()
    for _, _, files in walk(path):
        found |= {os.path.splitext(name)[1].lower() for name in files}
        if found & {*VIDEO_SUFFIXES, *TABLE_SUFFIXES, ".tar"}:
            return "videos"
    return "frames" if found & set(PICTURE_SUFFIXES) else "videos"
