"""Asymmetric Loop Sampling Strategy (Eq. 3, 4): which source frames make a looping training clip.

The clip goes forward over f frames, `stride` apart, to the turning frame, and returns to the first frame in f-1
backward steps. These are drawn uniformly from all sequences of `steps` that sum to the way forward. As printed,
Eq. 3 lists the turning frame twice; here a clip has 2f-1 frames, as in the rest of the paper.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache

from loopanimate_core.errors import LoopAnimateError

STRIDE = 6
STEPS = (2, 4, 6, 8)


def span(f: int, stride: int = STRIDE) -> int:
    """Source frames that a clip covers: 43, 61 and 103 for f = 8, 11, 18."""
    return stride * (f - 1) + 1


def forward_indices(f: int, stride: int = STRIDE) -> list[int]:
    """`[0, s, …, s(f-1)]`."""
    return [stride * i for i in range(f)]


def count_paths(
    f: int, stride: int = STRIDE, steps: tuple[int, ...] = STEPS, strict: bool = False
) -> int:
    """Number of ways back to the first frame (1,128, 44,803 and 277,164,295 for f = 8, 11, 18).

    `strict` counts only those where no frame in between equals its mirror image on the way forward.
    """
    return _completions(f, stride, tuple(steps), strict)[0].get(0, 0)


def sample_reverse_steps(
    f: int,
    stride: int = STRIDE,
    steps: tuple[int, ...] = STEPS,
    *,
    rng: random.Random,
    strict: bool = False,
) -> list[int]:
    """Draw the f-1 backward steps; all legal sequences are equally likely (Eq. 4).

    Raises:
        LoopAnimateError: no sequence of `steps` sums to `stride * (f-1)`.
    """
    table = _completions(f, stride, tuple(steps), strict)
    total = table[0].get(0, 0)
    if total == 0:
        raise LoopAnimateError(
            f"no {f - 1} steps out of {tuple(steps)} add up to {stride * (f - 1)} source frames"
        )
    return list(_unrank(rng.randrange(total), table, tuple(steps)))


def loop_indices(
    f: int,
    stride: int = STRIDE,
    steps: tuple[int, ...] = STEPS,
    *,
    rng: random.Random,
    strict: bool = False,
) -> list[int]:
    """The 2f-1 source frames of a clip (Eq. 3); first = last = 0 and index f-1 is the turning frame."""
    indices = forward_indices(f, stride)
    for step in sample_reverse_steps(f, stride, steps, rng=rng, strict=strict):
        indices.append(indices[-1] - step)
    return indices


def _unrank(rank: int, table: list[dict[int, int]], steps: tuple[int, ...]) -> Iterator[int]:
    """The sequence with this rank in lexicographic order."""
    gone = 0
    for ways in table[1:]:
        for step in steps:
            count = ways.get(gone + step, 0)
            if rank < count:
                gone += step
                yield step
                break
            rank -= count


@lru_cache(maxsize=32)
def _completions(f: int, stride: int, steps: tuple[int, ...], strict: bool) -> list[dict[int, int]]:
    """`table[j][d]`: number of ways to finish after j backward steps over d source frames in total."""
    moves, length = f - 1, stride * (f - 1)
    if f < 2 or stride < 1 or not steps or min(steps) < 1 or len(set(steps)) != len(steps):
        raise LoopAnimateError(
            "f must be at least 2, stride at least 1, and steps different numbers of at least 1, "
            f"got f = {f}, stride = {stride}, steps = {steps}"
        )
    table: list[dict[int, int]] = [{} for _ in range(moves + 1)]
    table[moves] = {length: 1}
    for j in reversed(range(moves)):
        for gone in range(length + 1):
            mirrored = strict and j > 0 and gone == stride * j
            ways = sum(table[j + 1].get(gone + step, 0) for step in steps)
            if ways and not mirrored:
                table[j][gone] = ways
    return table
