"""How a still moves: the result of the estimate, known between the frames too."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerMotion:
    """The motion of one layer over a loop, against frame 0.

    Attributes:
        model: `rest`, `translation`, `similarity`, `affine` or `elastic`.
        poses: [P, 6] float64, see `pose.py`; all zero in frame 0.
        centre: [2], what the layer turns about, in half-widths.
        bend: [P, n, n, 2], further displacement of points of frame 0, in half-widths, at the knots of a cubic
            B-spline; None unless the model is `elastic`.
        box: [4], left, top, right, bottom of the knots' square, in half-widths.
    """

    model: str
    poses: Tensor
    centre: Tensor
    bend: Tensor | None = None
    box: Tensor | None = None

    def at(self, count: int) -> LayerMotion:
        """The same motion in `count` frames evenly round the loop."""
        if count == len(self.poses):
            return self
        bend = None if self.bend is None else resample_ring(self.bend, count)
        poses = resample_ring(self.poses, count, period=_ANGLE_PERIOD)
        return LayerMotion(self.model, poses, self.centre, bend, self.box)


@dataclass(frozen=True)
class Motion:
    """The motion of a loop: the object under the mask, and what lies behind it."""

    object: LayerMotion
    background: LayerMotion

    @property
    def frames(self) -> int:
        return len(self.object.poses)

    def at(self, count: int) -> Motion:
        """The same motion in `count` frames evenly round the loop; still closed."""
        return Motion(self.object.at(count), self.background.at(count))


_ANGLE_PERIOD = torch.tensor([math.inf, math.inf, 2.0 * math.pi, math.inf, math.inf, math.inf])


def resample_ring(values: Tensor, count: int, period: Tensor | None = None) -> Tensor:
    """[P, …] → [count, …]: a periodic cubic spline through the values, at `count` even times.

    Values with a finite `period` […] may end whole turns from where they began; the turns go on evenly.
    """
    frames = len(values)
    if count == frames:
        return values
    times = torch.arange(count, dtype=torch.float64) * (frames / count)
    values = values.double()
    turn = torch.zeros_like(values[0])
    if period is not None:
        steps = values.roll(-1, 0) - values
        finite = period.isfinite()
        span = torch.where(finite, period, torch.ones_like(period)).double()
        turns = torch.where(finite, (steps / span).round(), torch.zeros_like(steps))
        values = values - span * (turns.cumsum(0) - turns)  # as if no step were over half a turn
        turn = -span * turns.sum(0)
    ramp = torch.arange(frames, dtype=torch.float64).reshape(-1, *[1] * (values.ndim - 1)) / frames
    level = (values - ramp * turn).flatten(1)
    spline = _spline_matrix(frames, times) @ level
    after = times.reshape(-1, *[1] * (values.ndim - 1)) / frames
    return spline.reshape(count, *values.shape[1:]) + after * turn


def _spline_matrix(frames: int, times: Tensor) -> Tensor:
    """[count, P]: the periodic cubic spline's values at `times` from those at 0 … P-1.

    The coefficients c of the cubic B-spline solve (c_{k-1} + 4 c_k + c_{k+1}) / 6 = v_k round the ring.
    """
    identity = torch.eye(frames, dtype=torch.float64)
    collocation = (identity.roll(1, 0) + 4.0 * identity + identity.roll(-1, 0)) / 6.0
    distance = times[:, None] - torch.arange(frames, dtype=torch.float64)
    basis = torch.zeros(len(times), frames, dtype=torch.float64)
    for lap in range(-3, 4):  # in a loop of two frames the basis reaches round more than once
        basis += cubic_basis(distance + lap * frames)
    spline = torch.linalg.solve(collocation, basis.T, left=True).T
    on_frame = (times - times.round()).abs() < 1e-9  # exactly the frame's own value
    return torch.where(on_frame[:, None], (distance.abs() < 0.5).double(), spline)


def cubic_basis(distance: Tensor) -> Tensor:
    """The cubic B-spline, 4/6 at 0, 1/6 at ±1 and 0 from ±2 on."""
    far = distance.abs()
    near = 2.0 / 3.0 - far.square() + 0.5 * far.pow(3)
    return torch.where(far < 1.0, near, (2.0 - far).clamp(min=0.0).pow(3) / 6.0)
