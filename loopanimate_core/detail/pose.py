"""Poses: where a layer is in every frame, as six numbers, and the matrices they stand for.

Positions are in half-widths of the frames from their middle, x right and y down, so a pose fits frames of
any size. A pose moves a point p of frame 0 to

    centre + shift + e^log_scale · R(angle) · S · (p - centre),   S = exp [[stretch, shear], [shear, -stretch]]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PARAMETERS = ("x", "y", "angle", "log_scale", "stretch", "shear")
MODELS: dict[str, tuple[int, ...]] = {
    "rest": (),
    "translation": (0, 1),
    "similarity": (0, 1, 2, 3),
    "affine": (0, 1, 2, 3, 4, 5),
}
"""The parameters each model of motion may use, simplest first."""


def matrices(poses: Tensor, centre: Tensor) -> Tensor:
    """[..., 6] → [..., 2, 3]: the affine map from frame 0 to the frame, in half-widths."""
    x, y, angle, log_scale, stretch, shear = poses.unbind(-1)
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

    [P, 6] → [P, len(columns), 2, 3]: for M(q)⁻¹ x = y, dy/dq_i = -M⁻¹ (dM/dq_i) (y, 1); the matrices
    M⁻¹ dM/dq_i by central differences.
    """
    step = 1e-4
    back = torch.linalg.inv(matrices(poses, centre)[..., :2])
    parts = []
    for column in columns:
        nudge = torch.zeros(6, dtype=poses.dtype)
        nudge[column] = step
        slope = matrices(poses + nudge, centre) - matrices(poses - nudge, centre)
        parts.append(back @ slope / (2.0 * step))
    return torch.stack(parts, 1)
