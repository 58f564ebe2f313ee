"""What a data set holds, and which of its clips each stage can use, as tables of text."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from loopanimate_core.files import atomic_write
from loopanimate_core.picture.shapes import nearest_shape

from ..config import ClipConfig, RunConfig
from .index.build import open_index
from .index.selection import HELD_OUT, Selection, frame_rates, select
from .index.table import ClipTable

TRAINED_ON = "to train on"
TOO_SHORT = "too short"


def survey(configs: Mapping[str, RunConfig], skipped: Path | None = None) -> str:
    """Tables of text: number of clips by reason and stage, and what the clips are like.

    Args:
        configs: runs over one data set, by the name of their stage.
        skipped: a JSON Lines file to write, with every clip that the first stage skips.
    """
    first = next(iter(configs.values()))
    lines: list[str] = []
    rows: list[Iterator[dict[str, Any]]] = []  # of each data set, to be read one after the other
    for number, (data, share) in enumerate(zip(first.data.sets, first.data.shares, strict=True)):
        table = open_index(data)
        selections = {
            f"stage {name}": select(table, config.data.sets[number], config.clip)
            for name, config in configs.items()
        }
        spans = {f"stage {name}": config.clip.span_frames for name, config in configs.items()}
        selection = next(iter(selections.values()))
        rows.append(list_skipped(table, selection))
        lines += [
            *([""] if lines else []),
            f"{data.path}: {table.reader}, {len(table):,} clips",
            *mix_rows(first, share, len(selection.rows())),
            "",
            *reason_rows(selections, spans),
            "",
            *describe_clips(table),
            *shape_rows(table, selection, first.clip),
        ]
    if skipped is not None:
        write_rows(skipped, chain.from_iterable(rows))
    return "\n".join(lines)


def mix_rows(config: RunConfig, share: int, clips: int) -> list[str]:
    """What a data set has of the samples of a run that mixes several; nothing for other runs."""
    if not config.data.mix:
        return []
    part = share / sum(config.data.shares)
    times = config.steps * config.batch.clips * part / max(clips, 1)
    return [f"{part:.1%} of the samples of stage {config.stage}, each clip {times:.3g} times"]


def reason_rows(selections: dict[str, Selection], spans: dict[str, int]) -> list[str]:
    """A table with a row per reason and a column per stage."""
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
    """Sizes, rates, lengths and peculiarities of the clips that can be decoded."""
    good = table.column("frames") > 0
    if not good.any():
        return ["no clip can be decoded"]
    frames = table.column("frames")[good]
    rates = frame_rates(table)[good]
    timed = rates > 0
    widths, heights = (table.column(name)[good].tolist() for name in ("width_px", "height_px"))
    sizes = Counter(zip(widths, heights, strict=True))
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
        f"also       {masks:,} with masks, {uneven:,} with uneven frame times (resampled), "
        f"{damaged:,} damaged towards the end (their intact beginning is used)"
    )
    return lines


def shape_rows(table: ClipTable, selection: Selection, clip: ClipConfig) -> list[str]:
    """How many clips of a run with several shapes are trained at each; nothing for other runs."""
    if not clip.shapes:
        return []
    used = selection.rows()
    widths, heights = (table.column(name)[used].tolist() for name in ("width_px", "height_px"))
    counts = dict.fromkeys(clip.all_shapes, 0)
    for (width_px, height_px), count in Counter(zip(widths, heights, strict=True)).items():
        counts[nearest_shape(clip.all_shapes, height_px, width_px)] += count
    return [f"shapes     {', '.join(f'{shape} ({n:,})' for shape, n in counts.items())}"]


def list_skipped(table: ClipTable, selection: Selection) -> Iterator[dict[str, Any]]:
    """Every clip that is not trained on: id, path, start and end, and the reason."""
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
        yield values


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON line per row, all or none."""
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _named_counts(selection: Selection) -> dict[str, int]:
    return {
        TOO_SHORT if reason.startswith("shorter than") else reason or TRAINED_ON: count
        for reason, count in selection.counts().items()
    }
