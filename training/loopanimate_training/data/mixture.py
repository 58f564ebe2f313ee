"""Several data sets as one (`data.mix`): their clips numbered together, and whose turn it is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch

from loopanimate_core.picture.shapes import Shape

from ..rng import torch_rng
from .source import ClipSource


class MixedSource:
    """A `ClipSource` of the clips of several others, one data set after the other."""

    def __init__(self, parts: Sequence[ClipSource]) -> None:
        self.parts = tuple(parts)
        sizes = map(len, self.parts)
        self._ends = tuple(accumulate(sizes))

    def ids_of(self, part: int) -> range:
        """The clips of one of the data sets."""
        end = self._ends[part]
        return range(end - len(self.parts[part]), end)

    def __len__(self) -> int:
        return self._ends[-1]

    def place(self, clip_id: int) -> tuple[ClipSource, int]:
        """The data set that a clip is in, and the clip's number there."""
        part = int(np.searchsorted(self._ends, clip_id, side="right"))
        return self.parts[part], clip_id - self.ids_of(part).start

    def key(self, clip_id: int) -> str:
        source, number = self.place(clip_id)
        return source.key(number)

    def fingerprint(self) -> str:
        hashes = " ".join(part.fingerprint() for part in self.parts)
        return hashlib.sha256(hashes.encode()).hexdigest()[:16]

    def name(self, clip_id: int) -> str:
        source, number = self.place(clip_id)
        return source.name(number)

    def frame_count(self, clip_id: int) -> int:
        source, number = self.place(clip_id)
        return source.frame_count(number)

    def shape(self, clip_id: int) -> Shape:
        source, number = self.place(clip_id)
        return source.shape(number)

    def caption(self, clip_id: int) -> str:
        source, number = self.place(clip_id)
        return source.caption(number)

    @property
    def lacks_masks(self) -> bool:
        return any(part.lacks_masks for part in self.parts)

    def has_masks(self, clip_id: int) -> bool:
        source, number = self.place(clip_id)
        return source.has_masks(number)

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        source, number = self.place(clip_id)
        return source.read(number, indices)


class SourceInTurns(MixedSource):
    """The same clips, numbered so that the data sets take turns: the first few clips show something of each."""

    def place(self, clip_id: int) -> tuple[ClipSource, int]:
        left, number, rest = list(self.parts), 0, clip_id
        while True:  # at most once for each data set
            shortest = min(left, key=len)
            rows = len(shortest) - number  # in which all that are left have a clip
            if rest < rows * len(left):
                return left[rest % len(left)], number + rest // len(left)
            rest, number = rest - rows * len(left), len(shortest)
            left.remove(shortest)


class Turns:
    """Which data set each of a run's samples is from: of every `sum(shares)` turns each has exactly its share, in an order
    drawn anew. A turn is `unit` samples long. A function of the seed and the sample's number alone."""

    def __init__(self, seed: int, shares: tuple[int, ...], unit: int) -> None:
        self._seed, self._shares, self._unit = seed, shares, unit

    def __call__(self, number: int) -> tuple[int, int]:
        """The data set of sample `number`, and how many samples of that data set come before it."""
        turn, within = divmod(number, self._unit)
        cycle, turn = divmod(turn, sum(self._shares))
        parts, earlier = _cycle(self._seed, cycle, self._shares)
        part = int(parts[turn])
        turns_before = cycle * self._shares[part] + int(earlier[turn])
        return part, turns_before * self._unit + within


@lru_cache(maxsize=16)
def _cycle(seed: int, cycle: int, shares: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """For each turn of a cycle: its data set, and the number of earlier turns of that data set in the cycle."""
    in_order = np.repeat(np.arange(len(shares)), shares)
    generator = torch_rng(seed, "data sets", cycle)
    parts = in_order[torch.randperm(len(in_order), generator=generator).numpy()]
    earlier = np.zeros(len(parts), np.int64)
    for part, share in enumerate(shares):
        earlier[parts == part] = np.arange(share)
    return parts, earlier
