"""Poses: where a layer is in every frame, as six numbers, and the matrices they stand for.

Positions are in half-widths of the frames from their middle, x right and y down, so a pose fits frames of
any size. A pose moves a point p of frame 0 to

    centre + shift + e^log_scale · R(angle) · S · (p - centre),   S = exp [[stretch, shear], [shear, -stretch]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import modes

PARAMETERS = ("x", "y", "angle", "log_scale", "stretch", "shear")
AFFINE = len(PARAMETERS)
MODELS: dict[str, tuple[int, ...]] = {
    "rest": (),
    "translation": (0, 1),
    "similarity": (0, 1, 2, 3),
    "affine": tuple(range(AFFINE)),
    "elastic": tuple(range(AFFINE + modes.COUNT)),
}
"""The parameters each model of motion may use, simplest first; those after the pose are the bends of `modes.py`."""


@dataclass(frozen=True)
class Anchor:
    """Where a layer is in frame 0, in half-widths.

    Attributes:
        centre: [2] float64, what it turns about.
        radius: what turns or grows by one moves so far.
        box: [4], its left, top, right and bottom.
    """

    centre: Tensor
    radius: float
    box: Tensor


def matrices(poses: Tensor, centre: Tensor) -> Tensor:
    """[..., 6 or more] → [..., 2, 3]: the affine map from frame 0 to the frame, in half-widths."""
    x, y, angle, log_scale, stretch, shear = poses[..., :AFFINE].unbind(-1)
    # The exponential of a symmetric traceless matrix [[a, b], [b, -a]] of length r: cosh r + sinh r / r · it
    length = torch.sqrt(stretch.square() + shear.square() + 1e-24)
    even, odd = torch.cosh(length), torch.sinh(length) / length
    s00, s01, s11 = even + odd * stretch, odd * shear, even - odd * stretch
    cosine, sine = angle.cos() * log_scale.exp(), angle.sin() * log_scale.exp()
    linear = torch.stack(
        [
            cosine * s00 - sine * s01,
            cosine * s01 - sine * s11,
            sine * s00 + cosine * s01,
            sine * s01 + cosine * s11,
        ],
        -1,
    ).unflatten(-1, (2, 2))
    shift = torch.stack([x, y], -1) + centre - (linear @ centre[:, None])[..., 0]
    return torch.cat([linear, shift[..., None]], -1)


def inverse(maps: Tensor) -> Tensor:
    """[..., 2, 3] → [..., 2, 3]: the map back."""
    linear = torch.linalg.inv(maps[..., :2])
    return torch.cat([linear, -(linear @ maps[..., 2:])], -1)


def generators(poses: Tensor, centre: Tensor, columns: Sequence[int]) -> Tensor:
    """How the point of frame 0 that lands on a fixed point moves with each parameter.

    [P, 6 or more] → [P, len(columns), 2, 3]: for M(q)⁻¹ x = y, dy/dq_i = -M⁻¹ (dM/dq_i) (y, 1); the matrices
    M⁻¹ dM/dq_i by central differences.
    """
    step = 1e-4
    back = torch.linalg.inv(matrices(poses, centre)[..., :2])
    parts = []
    for column in columns:
        nudge = torch.zeros(poses.shape[-1], dtype=poses.dtype)
        nudge[column] = step
        slope = matrices(poses + nudge, centre) - matrices(poses - nudge, centre)
        parts.append(back @ slope / (2.0 * step))
    return torch.stack(parts, 1)
