"""What is in a data set, and what becomes of it in each stage: `loopanimate-train inspect`."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

from ..config import RunConfig, resolve, stage_in
from ..data.index.build import open_index
from ..data.index.selection import HELD_OUT, Selection, frame_rates, select
from ..data.index.table import ClipTable
from ..data.readers.rows import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from ..data.readers.tables import TABLE_SUFFIXES
from ..stages import STAGES

TRAINED_ON = "to train on"
TOO_SHORT = "too short"
_SETTINGS_SUFFIXES = (".yaml", ".yml")


def stages_of(target: Path, stage: str | None) -> list[str]:
    """The stages to look at: the one asked for, else the one that a settings file is of, else all."""
    if stage is None and target.suffix.lower() in _SETTINGS_SUFFIXES:
        stage = stage_in(target)
    return [stage] if stage is not None else [str(number) for number in STAGES]


def resolve_target(target: Path, stage: int | str, overrides: list[str]) -> RunConfig:
    """The run over a settings file, or over nothing but a folder, a table or a tar.

    Raises:
        LoopAnimateError: it is not there, or the settings are wrong.
    """
    if target.suffix.lower() in _SETTINGS_SUFFIXES:
        file, data = target, {}
    elif target.exists():
        file, data = None, {"source": guess_source(target), "path": target}
    else:
        raise LoopAnimateError(f"there is no {target}")
    # Settings that a run needs and a look at its data does not.
    defaults: dict[str, Any] = {"out": ".", "model": {"start": "."}, "data": data}
    config = resolve(stage, file, overrides, defaults)
    if config.data.source == "mini":
        raise LoopAnimateError("the source `mini` draws its clips; there is nothing to inspect")
    return config


def guess_source(path: Path) -> str:
    """`frames` for a folder that holds pictures and no videos, else `videos`."""
    if not path.is_dir():
        return "videos"
    found: set[str] = set()
    for _, _, files in os.walk(path):
        found |= {os.path.splitext(name)[1].lower() for name in files}
        if found & {*VIDEO_SUFFIXES, *TABLE_SUFFIXES, ".tar"}:
            return "videos"
    return "frames" if found & set(PICTURE_SUFFIXES) else "videos"


def survey(
    target: Path, stage: str | None, overrides: list[str], listing: Path | None = None
) -> str:
    """Tables for people: rows by reason and stage, and what the clips are like.

    Args:
        stage: one stage; None: that of the settings, or all of them.
        listing: a JSON-lines file to write, with every clip that the (first) stage leaves out.
    """
    stages = stages_of(target, stage)
    configs = {f"stage {name}": resolve_target(target, name, overrides) for name in stages}
    first = next(iter(configs.values()))
    table = open_index(first.data)
    selections = {name: select(table, c.data, c.clip) for name, c in configs.items()}
    spans = {name: config.clip.span_frames for name, config in configs.items()}
    if listing is not None:
        write_left_out(listing, table, next(iter(selections.values())))
    return "\n".join(
        [
            f"{first.data.path}: {table.reader}, {len(table):,} clips",
            "",
            *reason_rows(selections, spans),
            "",
            *describe_clips(table),
        ]
    )


def reason_rows(selections: dict[str, Selection], spans: dict[str, int]) -> list[str]:
    """A table of reasons by stage."""
    counts = {name: _named_counts(selection) for name, selection in selections.items()}
    reasons = list(dict.fromkeys(reason for column in counts.values() for reason in column))
    fixed = [TRAINED_ON, HELD_OUT, TOO_SHORT]
    reasons = [r for r in fixed if r in reasons or r == TRAINED_ON] + [
        r for r in reasons if r not in fixed
    ]
    width = max(len("source frames needed"), *map(len, reasons)) + 2
    rows = [" " * width + "".join(f"{name:>12}" for name in counts)]
    rows.append(
        f"{'source frames needed':<{width}}" + "".join(f"{spans[name]:>12,}" for name in counts)
    )
    for reason in reasons:
        cells = "".join(f"{column.get(reason, 0):>12,}" for column in counts.values())
        rows.append(f"{reason:<{width}}{cells}")
    return rows


def describe_clips(table: ClipTable) -> list[str]:
    """Sizes, rates, lengths and oddities of the clips that decode."""
    good = table.column("frames") > 0
    if not good.any():
        return ["no clip decodes"]
    frames = table.column("frames")[good]
    rates = frame_rates(table)[good]
    timed = rates > 0
    sizes = Counter(
        zip(table.column("width_px")[good].tolist(), table.column("height_px")[good].tolist(), strict=True)
    )  # fmt: skip
    shown = ", ".join(f"{w} x {h} ({n:,})" for (w, h), n in sizes.most_common(4))
    more = f" and {len(sizes) - 4} other sizes" if len(sizes) > 4 else ""
    lines = [
        f"pictures   {shown}{more}",
        f"frames     {frames.min():,} to {frames.max():,}, half of the clips have {np.median(frames):,.0f} or more",
    ]
    if timed.any():
        seconds = frames[timed] / rates[timed]
        lines.append(
            f"time       {rates[timed].min():.4g} to {rates[timed].max():.4g} frames per second, "
            f"{seconds.sum() / 3600:.3g} hours in all"
        )
    masks = int((table.column("lengths")[:, 3] > 0).sum())
    uneven, damaged = (int(table.column(name)[good].sum()) for name in ("uneven", "damaged"))
    lines.append(
        f"besides    {masks:,} with masks, {uneven:,} with uneven frame times (resampled), "
        f"{damaged:,} damaged further on (their good beginning counts)"
    )
    return lines


def write_left_out(path: Path, table: ClipTable, selection: Selection) -> None:
    """A line per clip that is not trained on: id, path, part and reason."""
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        for number in np.flatnonzero(selection.codes).tolist():
            row = table.row(number)
            values = {
                "id": row.id,
                "path": os.fspath(row.media.path),
                "reason": selection.reasons[selection.codes[number]],
                "frames": int(selection.frames[number]),
            }
            if row.start_s is not None or row.end_s is not None:
                values |= {"start_s": row.start_s, "end_s": row.end_s}
            file.write(json.dumps(values) + "\n")


def _named_counts(selection: Selection) -> dict[str, int]:
    names = {"": TRAINED_ON}
    return {
        TOO_SHORT if reason.startswith("shorter than") else names.get(reason, reason): count
        for reason, count in selection.counts().items()
    }
