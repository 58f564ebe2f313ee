"""The verdict of a loop check: the quantities it needs, and the limits for each fault.

The limits are explained in docs/loop-check.md.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch

from ..errors import LoopAnimateError
from . import measures
from .meter import Measured

# Grey levels added to the denominator of a ratio, so that noise is not divided by almost zero.
NOISE_LEVEL = 0.1
# The steps around the seam count as at least this share of a median step: a smaller seam is not a jump.
JUMP_FLOOR = 0.3
POP_FLOOR = 0.5
MEASURABLE_LEVEL = 0.02  # with a smaller median step no ratios are computed


@dataclass(frozen=True)
class LoopThresholds:
    """The limits of the verdict. Distances are in grey levels, 0..255.

    Attributes:
        frozen_change: a clip is frozen if 99.5 % of its pixels never differ more from frame 0.
        jump_ratio: largest legal seam step over the largest of the four steps around it.
        pop_ratio: the same at full size, where texture counts too.
        held_ratio: a seam step below this share of the smaller neighbour is a held frame.
        held_attack: but only if motion starts at this share of its speed at once (1 = abruptly); a
            natural turning point starts gently, at 0.2 to 0.7.
        held_around: or if the frames on both sides of it are this far apart, as a share of the path
            across the seam (1 = motion goes straight on; a turning point has up to 0.3).
        stall_ratio: steps below this share of the median step count as no motion.
        stall_share: longest legal stop at the seam, as a share of the loop (3 steps are always legal).
        colour_step: largest legal step of the mean colour at the seam, in CIE76 units.
        mirror_ratio: a clip is a mirror if its mirrored frames differ by less than this share of a step.
        mirror_attack: a mirror is a ping-pong if it turns around at this share of its speed or more.
    """

    frozen_change: float = 3.0
    jump_ratio: float = 1.6
    pop_ratio: float = 2.0
    held_ratio: float = 0.25
    held_attack: float = 0.8
    held_around: float = 0.4
    stall_ratio: float = 0.15
    stall_share: float = 0.1
    colour_step: float = 1.0
    mirror_ratio: float = 0.12
    mirror_attack: float = 0.7

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise LoopAnimateError(f"threshold {field.name} must be above 0, got {value}")


@dataclass(frozen=True)
class Analysis:
    """The quantities behind report and verdict; see `measures` for the terms.

    For everything about motion, a repeated loop is averaged over its repeats, which removes most of the
    encoder's noise. Its seam is measured at the restart of the file, where the encoder starts again.

    Attributes:
        steps: at full size, of all frames; median: of `steps` without the seam.
        coarse: all frames shrunk to 64 px, of a very long clip those around the seam; colours: mean colours,
            L*a*b*, of all frames.
        period: frames of the loop.
        moving_steps: of the averaged loop at 64 px, without grain.
        around: distance of the frames on both sides of the seam over the path across it.
        change: 99.5 % of the pixels at 32 px never differ more from frame 0.
        tiny_step: median of the moving steps at 32 px. mirror: at 32 px.
    """

    steps: torch.Tensor
    median: float
    coarse: torch.Tensor
    colours: torch.Tensor
    period: int
    moving_steps: torch.Tensor
    around: float
    change: float
    tiny_step: float
    mirror: measures.Mirror

    @property
    def measurable(self) -> bool:
        return self.median > MEASURABLE_LEVEL


def analyse(clip: Measured) -> Analysis:
    """Derive the quantities of the verdict from what the frames that play showed."""
    steps, coarse = clip.steps, clip.coarse
    whole = len(coarse) == clip.frames
    period = _period(coarse) if whole else len(coarse)
    loop = coarse.unflatten(0, (-1, period)).mean(0)
    moving_steps = measures.moving_steps(loop)
    across = measures.moving_distance(loop[-2], loop[1])
    tiny = measures.shrink(loop, measures.MATRIX_PX)
    change = (tiny - tiny[:1]).abs().mean(-1).flatten(1).quantile(0.995, dim=1).max()
    return Analysis(
        steps=steps,
        coarse=coarse,
        period=period if whole else clip.frames,
        colours=clip.colours,
        median=float(steps[:-1].median()),
        moving_steps=moving_steps,
        around=float(across / (moving_steps[-2] + moving_steps[0]).clamp(min=1e-6)),
        change=float(change) * measures.LEVELS,
        tiny_step=float(measures.moving_steps(tiny).median()),
        mirror=measures.find_mirror(tiny, moving_steps),
    )


def _period(coarse: torch.Tensor) -> int:
    matrix = measures.distance_matrix(measures.shrink(coarse, measures.MATRIX_PX))
    same = 0.25 * float(matrix.diagonal(1).median()) + NOISE_LEVEL
    return measures.find_period(matrix, tolerance=min(same, 0.2 * float(matrix.mean())))


def seam_over_surroundings(steps: torch.Tensor, floor: float) -> float:
    """Seam step over the largest of the four steps around it, or over `floor` medians if that is more."""
    usual = max(float(measures.seam_surroundings(steps)), floor * float(steps[:-1].median()))
    return float(steps[-1]) / (usual + NOISE_LEVEL)


def seam_acceleration(coarse: torch.Tensor) -> float:
    """The largest acceleration next to the seam over the median one."""
    accelerations = measures.accelerations(coarse)
    return float(accelerations[[0, -1]].max() / (accelerations.median() + NOISE_LEVEL))


def rest_at_seam(steps: torch.Tensor, limits: LoopThresholds) -> tuple[int, int]:
    """The longest runs of steps without motion: at the seam, and elsewhere."""
    return measures.slow_run(steps, limits.stall_ratio * float(steps[:-1].median()))


def find_faults(found: Analysis, limits: LoopThresholds) -> tuple[str, ...]:
    """The faults of a loop, as keys of `report.REASONS`; none for a seamless loop."""
    if found.change < limits.frozen_change:
        return ("frozen",)
    drifts = _colour_snaps(found.colours, limits)
    # A colour that jumps back makes the seam step large; call it a jump only if the shapes jump too.
    recoloured = measures.match_colours(found.coarse) if drifts else found.coarse
    seam = seam_over_surroundings(measures.step_sizes(recoloured), JUMP_FLOOR)
    jumps = seam > limits.jump_ratio
    texture = seam_over_surroundings(found.steps, POP_FLOOR)
    faults = {
        "jump": jumps,
        "held_frame": _is_held(found, limits),
        "stall": _stalls(found, limits),
        "colour_drift": drifts,
        "ping_pong": _is_ping_pong(found, limits),
        "keyframe_pop": texture > limits.pop_ratio and not (jumps or drifts),
    }
    return tuple(reason for reason, holds in faults.items() if holds)


def _colour_snaps(colours: torch.Tensor, limits: LoopThresholds) -> bool:
    """Whether the mean colour jumps at the seam, and more than motion changes it around the seam."""
    steps = (colours.roll(-1, 0) - colours).norm(dim=1)
    seam = float(steps[-1])
    return seam > limits.colour_step and seam > 2 * float(measures.seam_surroundings(steps))


def _is_held(found: Analysis, limits: LoopThresholds) -> bool:
    """Whether there is hardly a step at the seam, although motion is fast or goes straight on there.

    A natural turning point between two frames also has a small step, but there motion starts gently and
    goes back the way it came.
    """
    steps = found.moving_steps
    if float(steps[-1]) >= limits.held_ratio * float(torch.minimum(steps[-2], steps[0])):
        return False
    abrupt = max(measures.attack(steps, 0, 1), measures.attack(steps, -2, -1))
    return abrupt >= limits.held_attack or found.around >= limits.held_around


def _stalls(found: Analysis, limits: LoopThresholds) -> bool:
    """Whether motion stops at the seam for longer than anywhere else."""
    at_seam, elsewhere = rest_at_seam(found.moving_steps, limits)
    return at_seam > max(3, limits.stall_share * found.period) and at_seam > elsewhere


def _is_ping_pong(found: Analysis, limits: LoopThresholds) -> bool:
    """Whether the clip is a mirror image in time with an abrupt turn; a swing turns gently."""
    mirrored = found.mirror.error < limits.mirror_ratio * found.tiny_step
    return mirrored and found.mirror.attack >= limits.mirror_attack
