"""The sticker cache: sprites and animations of emoji, with their names.

The cache is three files: `sprites.npy` [N, S, S, 4] uint8 (first frames, straight alpha), `clips.npy` [T, S, S, 4]
uint8 (all frames of the animated ones, one after another) and `emoji.json`, one record per sprite. `packages.py`
makes it from npm packages.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loopanimate_core.errors import LoopAnimateError

HELD_OUT_ONE_IN = 10

SKIN_TONES = {f"1f3f{digit}" for digit in "bcdef"}
_DROPPED = SKIN_TONES | {"fe0f", "200d", "2640", "2642"}  # variation selector, joiner, gender signs
_GENDER_NEUTRAL = {
    "1f468": "1f9d1",  # man, woman → person
    "1f469": "1f9d1",
    "1f466": "1f9d2",  # boy, girl → child
    "1f467": "1f9d2",
    "1f474": "1f9d3",  # old man, old woman → older person
    "1f475": "1f9d3",
    "1f934": "1fac5",  # prince, princess → person with crown
    "1f478": "1fac5",
    "1f936": "1f385",  # Mrs. Claus → Santa Claus
}
_CLOCKS = range(0x1F550, 0x1F568)


@dataclass(frozen=True)
class Emoji:
    """One sticker. `clip_start`, `clip_frames`: its frames in `clips.npy` (0 frames: not animated)."""

    hexcode: str
    name: str
    tags: tuple[str, ...]
    family: str
    held_out: bool
    touches_edge: bool
    clip_start: int = 0
    clip_frames: int = 0


class EmojiCache:
    """The prepared stickers. The arrays are memory-mapped: they open at once and processes share the memory."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        index = folder / "emoji.json"
        if not index.is_file():
            raise LoopAnimateError(
                f"{folder} is not a sticker cache: it has no emoji.json. Make one with "
                "python -m loopanimate_training.mini WORK --until data"
            )
        self.folder = folder
        self.emoji = [
            Emoji(**{**row, "tags": tuple(row["tags"])}) for row in json.loads(index.read_text())
        ]

    @cached_property
    def sprites(self) -> NDArray[np.uint8]:
        """[N, S, S, 4] uint8, straight alpha."""
        return np.load(self.folder / "sprites.npy", mmap_mode="r")

    @cached_property
    def clips(self) -> NDArray[np.uint8]:
        """[T, S, S, 4] uint8, straight alpha."""
        return np.load(self.folder / "clips.npy", mmap_mode="r")

    @cached_property
    def content(self) -> str:
        """A hash of the names, the first frames and the size of `clips.npy`; that file is too large to hash."""
        digest = hashlib.sha256((self.folder / "emoji.json").read_bytes())
        with (self.folder / "sprites.npy").open("rb") as sprites:
            while block := sprites.read(1 << 20):
                digest.update(block)
        digest.update(str((self.folder / "clips.npy").stat().st_size).encode())
        return digest.hexdigest()[:16]

    def select(self, held_out: bool, *, movable: bool = False, animated: bool = False) -> list[int]:
        """Rows of one side of the split; `movable` skips art that is cut off by the picture's edge."""
        return [
            row
            for row, emoji in enumerate(self.emoji)
            if emoji.held_out == held_out
            and not (movable and emoji.touches_edge)
            and not (animated and emoji.clip_frames == 0)
        ]


def family_of(hexcode: str) -> str:
    """An emoji's code points without skin tone, gender and joiners.

    Versions of one drawing (man, woman, person; the clock faces; the keycaps) share a family. The data is split
    by family, so that no version of a held-out drawing is trained on.
    """
    points = [
        _GENDER_NEUTRAL.get(point, point)
        for point in hexcode.lower().split("-")
        if point not in _DROPPED
    ]
    if "20e3" in points:
        return "keycap"
    if len(points) == 1 and int(points[0], 16) in _CLOCKS:
        return "clock"
    return "-".join(points)


def is_held_out(family: str) -> bool:
    """One family in ten, chosen by hash: the same on every machine, and not changed by later additions."""
    return int(hashlib.sha256(family.encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0
