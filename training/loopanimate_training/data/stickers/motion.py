"""What a motion prompt means: verbs, speeds and strengths as deformations of an object over time.

Every motion starts at the still: the deformation at time 0 is the identity, so frame 0 is the input picture, and
passes it smoothly. The first direction is fixed per verb (up, right, clockwise, bigger), because a prompt cannot
name it. Verbs are anchored where such things are anchored: a tree bends from its base, a coin spins around its middle.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

FPS = 24.0
SPAN_FRAMES = 52  # 18 forward frames with stride 3: the longest span of any stage
STILL = "staying still"

SPEEDS = {"slowly": 0.5, "": 1.0, "quickly": 2.0}  # cycles per SPAN_FRAMES
STRENGTHS = {"gently": 0.5, "": 1.0, "strongly": 1.6}

SHIFT = 0.16  # half-sides: half the square root of the picture's area
TILT_RAD = 0.35
SWELL = 0.18  # natural logarithm of the size


@dataclass(frozen=True)
class Motion:
    """The words of a motion prompt: one or two keys of `VERBS`, and a key each of `SPEEDS` and `STRENGTHS`."""

    verb: str = STILL
    speed: str = ""
    strength: str = ""
    second_verb: str = ""

    @property
    def verbs(self) -> tuple[str, ...]:
        return (self.verb, self.second_verb) if self.second_verb else (self.verb,)


@dataclass(frozen=True)
class Deformation:
    """How an object differs from its still at n times, each `[n]`; zero is the identity.

    Applied in this order: `widen` and `heighten` (natural logarithms of a stretch from the middle of the base),
    the wave (height shifted by wave_sin · sin(2πs) + wave_cos · cos(2πs), s = place across the object, in object
    heights), `lean` and `bend` (shift to the right at the top, in object heights: linear, quadratic in the height above
    the base), `angle_rad` and `log_scale` (clockwise and bigger, around the centre), `tip_rad` (clockwise around the
    base), `x` and `y` (right and down, in half-sides of the picture).
    """

    x: Tensor
    y: Tensor
    angle_rad: Tensor
    log_scale: Tensor
    widen: Tensor
    heighten: Tensor
    lean: Tensor
    bend: Tensor
    tip_rad: Tensor
    wave_sin: Tensor
    wave_cos: Tensor

    def stacked(self) -> Tensor:
        """All fields as `[n, 11]`, in the order of `FIELDS`."""
        return torch.stack([getattr(self, name) for name in FIELDS], -1)

    @staticmethod
    def from_stacked(values: Tensor) -> Deformation:
        """The inverse of `stacked`."""
        return Deformation(*values.unbind(-1))


FIELDS = tuple(field.name for field in fields(Deformation))

Waves = dict[str, Tensor]


def _two_sided(cycles: float = 1.0, **amplitudes: float) -> Callable[[Tensor], Waves]:
    """There, back, to the other side and back: a sine."""
    return lambda phase_rad: {
        name: amplitude * (cycles * phase_rad).sin() for name, amplitude in amplitudes.items()
    }


def _one_sided(cycles: float = 1.0, **amplitudes: float) -> Callable[[Tensor], Waves]:
    """There and back: (1 - cos) / 2, which starts and ends at rest."""
    return lambda phase_rad: {
        name: amplitude * 0.5 * (1.0 - (cycles * phase_rad).cos())
        for name, amplitude in amplitudes.items()
    }


def _together(*parts: Callable[[Tensor], Waves]) -> Callable[[Tensor], Waves]:
    return lambda phase_rad: {
        name: value for part in parts for name, value in part(phase_rad).items()
    }


def _travelling_wave(height: float) -> Callable[[Tensor], Waves]:
    """height · (sin(2πs - phase) - sin(2πs)), s = place across the object: a flag in the wind."""
    return lambda phase_rad: {
        "wave_sin": height * (phase_rad.cos() - 1.0),
        "wave_cos": -height * phase_rad.sin(),
    }


VERBS: dict[str, Callable[[Tensor], Waves]] = {
    "bobbing up and down": _two_sided(y=-SHIFT),
    "swaying left and right": _two_sided(x=SHIFT),
    "rocking side to side": _two_sided(angle_rad=TILT_RAD),
    "pulsing": _two_sided(log_scale=SWELL),
    STILL: lambda phase_rad: {},
    "bouncing": _one_sided(2, y=-1.9 * SHIFT, heighten=0.12, widen=-0.08),
    "shaking": _two_sided(3, x=0.5 * SHIFT, angle_rad=0.08),
    "floating": _together(_two_sided(x=0.8 * SHIFT), _one_sided(y=-1.6 * SHIFT)),
    "nodding": _one_sided(2, tip_rad=0.4),
    "breathing": _one_sided(heighten=0.26, widen=0.1),
    "swaying in the wind": _two_sided(bend=0.3),
    "wobbling like jelly": _two_sided(2, heighten=0.16, widen=-0.16),
    "waving": _travelling_wave(0.1),
    "hopping": _together(_one_sided(x=2.2 * SHIFT), _one_sided(2, y=-1.5 * SHIFT)),
    "leaning": _two_sided(lean=0.34),
    "spinning": _one_sided(widen=-0.9),
    "zooming": _one_sided(log_scale=0.45),
}
SHORT_NAMES = {
    "bobbing up and down": "bobbing",
    "swaying left and right": "swaying",
    "rocking side to side": "rocking",
    "wobbling like jelly": "wobbling",
}
"""What else a prompt may say for a verb."""
CORE_VERBS = tuple(VERBS)[:5]  # those of the first mini
MOVING_VERBS = tuple(verb for verb in VERBS if verb != STILL)


def deformation_at(motion: Motion, times_s: Tensor) -> Deformation:
    """Deformation of the object at `times_s` [n] (seconds since the still). Two verbs add up."""
    cycles = SPEEDS[motion.speed] * FPS / SPAN_FRAMES * times_s
    values = dict.fromkeys(FIELDS, torch.zeros_like(cycles))
    for verb in motion.verbs:
        for name, wave in VERBS[verb](2.0 * math.pi * cycles).items():
            values[name] = values[name] + STRENGTHS[motion.strength] * wave
    return Deformation(**values)
