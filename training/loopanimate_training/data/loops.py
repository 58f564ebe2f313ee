"""Which frames of a source clip make a training loop: mirrored in time (ALSS), or one round of a natural loop.

A natural loop is numbered by the frames of training, 0 to 2f-3, wherever these lie in the source.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from .. import alss
from ..config import ClipConfig


def draw_loop(clip: ClipConfig, rng: random.Random) -> list[int]:
    """The 2f-1 frames of a loop; the first is also the last (Eq. 3, 4). A natural loop needs no draw."""
    if clip.loops:
        return [*range(2 * clip.f - 2), 0]
    return alss.loop_indices(clip.f, clip.stride, clip.reverse_steps, rng=rng, strict=clip.strict)


def possible_frames(clip: ClipConfig) -> tuple[int, ...]:
    """Every frame that `draw_loop` may return, ascending."""
    step = 1 if clip.loops else math.gcd(clip.stride, *clip.reverse_steps)
    return tuple(range(0, clip.span_frames, step))


def spread(indices: Sequence[int], count: int, round_frames: int) -> list[int]:
    """Where frames `indices` of a round of `round_frames` lie in a natural loop of `count` source frames."""
    return [index * count // round_frames for index in indices]
