"""Frames that are drawn one at a time, so that a loop need not fit into memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from torch import Tensor

from ..errors import LoopAnimateError


class FrameSource(Protocol):
    """The frames `[H, W, C]` of a loop, all of one size: a tensor `[P, H, W, C]`, or anything that draws them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Mapped:
    """The frames of `source`, each changed by `change`."""

    source: FrameSource
    change: Callable[[int, Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        return self.change(index, self.source[index])


class Chained:
    """Loops of one size, one after the other.

    Raises:
        LoopAnimateError: the loops have different sizes.
    """

    def __init__(self, sources: Sequence[FrameSource]) -> None:
        require_one_size(sources)
        self.sources, self._ends = sources, list(accumulate(map(len, sources)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Tensor:
        number = bisect_right(self._ends, index)
        return self.sources[number][index - (self._ends[number - 1] if number else 0)]


def require_one_size(sources: Sequence[FrameSource]) -> None:
    """Raise LoopAnimateError unless all loops have the size of the first."""
    height, width = sources[0][0].shape[:2]
    for number, source in enumerate(sources[1:], start=2):
        size = source[0].shape[:2]
        if tuple(size) != (height, width):
            raise LoopAnimateError(
                f"loop {number} is {size[1]} x {size[0]} pixels and loop 1 {width} x {height};"
                " loops in a chain must have the same size"
            )
