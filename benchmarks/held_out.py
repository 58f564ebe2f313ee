"""Held-out subjects of the drawn clips, each moved by every verb from the same still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.data.photographs.cutouts import Cutout, CutoutCache
from loopanimate_training.data.stickers.clips import DrawnClip, DrawnClips
from loopanimate_training.data.stickers.emoji import EmojiCache
from loopanimate_training.data.stickers.motion import CORE_VERBS, VERBS, Motion
from loopanimate_training.data.stickers.source import CUTOUTS_FOLDER

STICKERS, ON_PHOTOGRAPHS, PHOTOGRAPHS = GROUPS = ("stickers", "on photos", "photographs")
"""Stickers over drawn backgrounds, stickers over photographs, and parts cut out of photographs."""

DRAWN_BACKGROUNDS = ("pastel", "gradient")


def open_caches(folder: Path) -> tuple[EmojiCache, CutoutCache | None]:
    """The sticker cache in `folder`, and the cut-outs if it has some."""
    cutouts = folder / CUTOUTS_FOLDER
    return EmojiCache(folder), CutoutCache(cutouts) if cutouts.is_dir() else None


def held_out_clips(
    cache: EmojiCache,
    cutouts: CutoutCache | None,
    subjects: Mapping[str, int],
    height_px: int,
    width_px: int,
    *,
    verbs: Sequence[str] = tuple(VERBS),
    seed: int = 0,
    backgrounds: Sequence[str] = DRAWN_BACKGROUNDS,
) -> dict[str, list[DrawnClip]]:
    """The clips of each group in `subjects`: every verb for that many subjects, with true masks.

    Stickers are of different families. Cut-outs are of different photographs as far as there are enough.
    `backgrounds` are those of the first group, in turn.

    Raises:
        LoopAnimateError: the caches have fewer held-out subjects.
    """
    source = DrawnClips(cache, "held_out", height_px, width_px, cutouts=cutouts)
    rng = np.random.default_rng((seed, 0x100B))
    families = {cache.emoji[row].family: row for row in cache.select(True, movable=True)}
    rows = [int(row) for row in rng.permutation(list(families.values()))]
    cut = cutouts.select(True, height_px, width_px) if cutouts else []
    wanted = {group: subjects.get(group, 0) for group in GROUPS}
    _check(wanted[STICKERS] + wanted[ON_PHOTOGRAPHS], len(rows), "stickers")
    if wanted[ON_PHOTOGRAPHS]:
        _check(1, len(cut), f"cut-outs of {width_px} x {height_px} pixels")
    _check(wanted[PHOTOGRAPHS], len(cut), f"cut-outs of {width_px} x {height_px} pixels")
    moving = Motion(CORE_VERBS[0])  # gives stickers the size and place of moving ones
    found: dict[str, list[DrawnClip]] = {}
    for group, count in wanted.items():
        if group == PHOTOGRAPHS:
            firsts = [source.cut_out(rng, c, moving) for c in _spread(cut, rng)[:count]]
        else:
            kinds = backgrounds if group == STICKERS else ("photograph",)
            taken, rows = rows[:count], rows[count:]
            firsts = [
                source.moved(rng, row, moving, kinds[number % len(kinds)])
                for number, row in enumerate(taken)
            ]
        found[group] = [
            replace(first, caption=f"a {first.name} {verb}", motion=Motion(verb), mask="true")
            for first in firsts
            for verb in verbs
        ]
    return {group: clips for group, clips in found.items() if clips}


def _spread(cut: Sequence[Cutout], rng: np.random.Generator) -> list[Cutout]:
    """In random order, but one of every photograph before the second of any."""
    seen: dict[str, int] = {}
    rounds = []
    for cutout in (cut[n] for n in rng.permutation(len(cut))):
        seen[cutout.photograph] = seen.get(cutout.photograph, 0) + 1
        rounds.append((seen[cutout.photograph], cutout))
    return [cutout for _, cutout in sorted(rounds, key=lambda pair: pair[0])]


def _check(wanted: int, available: int, what: str) -> None:
    if not 0 <= wanted <= available:
        raise LoopAnimateError(f"there are {available} held-out {what}, got a request for {wanted}")
