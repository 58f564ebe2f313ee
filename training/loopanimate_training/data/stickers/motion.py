"""What a motion prompt means: verbs, speeds and strengths as poses over time.

Every motion starts at the still: the pose at time 0 is zero, so frame 0 is the input picture. The first direction is
fixed per verb (up, right, clockwise, bigger), because a prompt cannot name it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

FPS = 24.0
SPAN_FRAMES = 52  # 18 forward frames with stride 3: the longest span of any stage
STILL = "staying still"

SPEEDS = {"slowly": 0.5, "": 1.0, "quickly": 2.0}  # cycles per SPAN_FRAMES
STRENGTHS = {"gently": 0.5, "": 1.0, "strongly": 1.6}

SHIFT = 0.16  # half-widths of the picture
TILT_RAD = 0.35
SWELL = 0.18  # natural logarithm of the size


@dataclass(frozen=True)
class Motion:
    """The words of a motion prompt: a key each of `VERBS`, `SPEEDS` and `STRENGTHS`."""

    verb: str = STILL
    speed: str = ""
    strength: str = ""


@dataclass(frozen=True)
class Pose:
    """Displacement from the still, each [n]: x (right) and y (down) in half-widths, angle clockwise in radians,
    natural logarithm of the size."""

    x: Tensor
    y: Tensor
    angle_rad: Tensor
    log_scale: Tensor


def _path(
    x: float = 0.0, y: float = 0.0, angle: float = 0.0, scale: float = 0.0
) -> Callable[[Tensor], Pose]:
    """A sine along a fixed direction in pose space."""

    def pose(phase_rad: Tensor) -> Pose:
        wave = phase_rad.sin()
        return Pose(x * wave, y * wave, angle * wave, scale * wave)

    return pose


def _bounce(phase_rad: Tensor) -> Pose:
    zero = torch.zeros_like(phase_rad)
    return Pose(zero, -1.5 * SHIFT * phase_rad.sin().abs(), zero, zero)


def _shake(phase_rad: Tensor) -> Pose:
    zero = torch.zeros_like(phase_rad)
    return Pose(0.5 * SHIFT * (3.0 * phase_rad).sin(), zero, zero, zero)


def _spin(phase_rad: Tensor) -> Pose:
    zero = torch.zeros_like(phase_rad)
    return Pose(zero, zero, phase_rad, zero)


def _drift(x: float, y: float) -> Callable[[Tensor], Pose]:
    """Constant speed. Not a loop by itself, but the loop sampling returns to its start."""

    def pose(phase_rad: Tensor) -> Pose:
        way = SHIFT * phase_rad / math.pi
        return Pose(x * way, y * way, torch.zeros_like(way), torch.zeros_like(way))

    return pose


VERBS: dict[str, Callable[[Tensor], Pose]] = {
    "bobbing up and down": _path(y=-SHIFT),
    "swaying left and right": _path(x=SHIFT),
    "rocking side to side": _path(angle=TILT_RAD),
    "pulsing": _path(scale=SWELL),
    STILL: _path(),
    "bouncing": _bounce,
    "shaking": _shake,
    "spinning": _spin,
    "drifting left": _drift(-1.0, 0.0),
    "drifting right": _drift(1.0, 0.0),
    "drifting up": _drift(0.0, -1.0),
    "drifting down": _drift(0.0, 1.0),
}
CORE_VERBS = tuple(VERBS)[:5]  # those of the CPU mini and of the motion classifier


def pose_at(motion: Motion, times_s: Tensor) -> Pose:
    """Pose of `motion` at `times_s` [n] (seconds since the still)."""
    cycles = SPEEDS[motion.speed] * FPS / SPAN_FRAMES * times_s
    pose = VERBS[motion.verb](2.0 * math.pi * cycles)
    if motion.verb == "spinning":  # a strength would change its speed, which has words of its own
        return pose
    gain = STRENGTHS[motion.strength]
    return Pose(gain * pose.x, gain * pose.y, gain * pose.angle_rad, gain * pose.log_scale)
