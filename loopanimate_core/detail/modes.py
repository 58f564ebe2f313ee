"""The bends of things that stand, hang or flutter: six numbers that say how far points of frame 0 have moved.

With u and v the place in the object's box, -1 to 1 across and down, a point is shifted by

    x: a₁·v² + a₂·sin πv + a₃·cos πv        y: b₁·u² + b₂·sin πu + b₃·cos πu

half-widths, before the layer's pose. A stalk that bends from its base is a₁ (and a part of the pose), a wave that
runs across a flag is b₂ and b₃. x depends on y alone and y on x alone, so the way back is found in a few rounds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

COUNT = 6
_REACH = 1.5  # of the box: beyond it the shift stays the same
_ROUNDS = 5


def shift(points: Tensor, amounts: Tensor, box: Tensor) -> Tensor:
    """How far the bend moves points [P, h, w, 2] of frame 0: the same shape.

    Args:
        amounts: [P, 6], a₁ a₂ a₃ b₁ b₂ b₃.
        box: [4], left, top, right, bottom of the object in half-widths.
    """
    across, down = _place(points, box).unbind(-1)
    a, b = (part[:, :, None, None] for part in amounts.split(3, -1))
    by_height, by_width = _shapes(down), _shapes(across)
    return torch.stack(
        [
            sum(a[:, i] * by_height[i] for i in range(3)),  # type: ignore[list-item]
            sum(b[:, i] * by_width[i] for i in range(3)),  # type: ignore[list-item]
        ],
        -1,
    )


def undone(points: Tensor, amounts: Tensor, box: Tensor) -> Tensor:
    """The points of frame 0 that the bend moves to `points` [P, h, w, 2]."""
    source = points
    for _ in range(_ROUNDS if bool(amounts.any()) else 0):
        source = points - shift(source, amounts, box)
    return source


def slopes(points: Tensor, amounts: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """d shift_x / dy and d shift_y / dx at points [P, h, w, 2] of frame 0, [P, h, w] each; the other two are 0."""
    across, down = _place(points, box).unbind(-1)
    a, b = (part[:, :, None, None] for part in amounts.split(3, -1))
    half_width, half_height = (0.5 * (box[2:] - box[:2])).unbind()
    return tuple(
        (
            part[:, 0] * 2.0 * at
            + math.pi * (part[:, 1] * (math.pi * at).cos() - part[:, 2] * (math.pi * at).sin())
        )
        * (at.abs() < _REACH)
        / half
        for part, at, half in ((a, down, half_height), (b, across, half_width))
    )  # type: ignore[return-value]


def shapes(points: Tensor, box: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The shapes of the bends along x and along y at points [P, h, w, 2] of frame 0, three [P, h, w] each."""
    across, down = _place(points, box).unbind(-1)
    return _shapes(down), _shapes(across)


def _shapes(at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return at.square(), (math.pi * at).sin(), (math.pi * at).cos()


def _place(points: Tensor, box: Tensor) -> Tensor:
    box = box.to(points.dtype)
    middle, half = 0.5 * (box[:2] + box[2:]), 0.5 * (box[2:] - box[:2])
    return ((points - middle) / half).clamp(-_REACH, _REACH)
