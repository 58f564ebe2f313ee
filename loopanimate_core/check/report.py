"""Loop check: does a clip play as a seamless loop, and if not, why not?

`check_loop` scores frames, `check_file` a decoded video file. The figures and the limits behind the
verdict are explained in docs/loop-check.md.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

from ..errors import LoopAnimateError
from ..picture.images import Picture, fit_pixels, require_frames, require_rgb
from . import measures

MIN_FRAMES = 4
# Grey levels added below a ratio, so that a division by almost nothing says nothing.
NOISE_LEVEL = 0.1
# Surroundings at rest count as this share of a median step: a smaller seam step is no jump.
JUMP_FLOOR = 0.3
POP_FLOOR = 0.5
MEASURABLE_LEVEL = 0.02  # a median step below this is not compared with

ImageEncoder = Callable[[torch.Tensor], torch.Tensor]

REASONS = {
    "frozen": "nothing moves",
    "jump": "the picture jumps at the seam",
    "held_frame": "a frame is held at the seam: the last frame repeats the first and should be dropped",
    "stall": "the motion rests at the seam",
    "colour_drift": "the colours drift over the clip and snap back at the seam",
    "ping_pong": "the clip turns round at full speed and plays backwards",
    "keyframe_pop": "the encoding changes visibly where the file starts again",
}  # fmt: skip


@dataclass(frozen=True)
class LoopThresholds:
    """The limits of the verdict. Distances are in grey levels, 0..255.

    Attributes:
        frozen_change: a clip is frozen when 99.5 % of its pixels never leave frame 0 by more.
        jump_ratio: largest seam step over the largest of the four steps around it.
        pop_ratio: the same at full size, where texture counts too.
        held_ratio: a seam step below this share of the smaller neighbour is a held frame.
        held_attack: and only if motion sets off at this share of its speed at once (1 = abruptly);
            a natural turning point starts gently, at 0.2 to 0.7.
        held_around: or if the frames either side of it are this far apart, as a share of the path over
            the seam (1 = motion goes straight on; a turning point has up to 0.3).
        stall_ratio: steps below this share of the median step count as rest.
        stall_share: longest rest at the seam, as a share of the loop (3 steps are always allowed).
        colour_step: largest mean-colour step at the seam, in CIE76 units.
        mirror_ratio: a clip whose mirrored frames differ by less than this share of a step is a mirror.
        mirror_attack: and a ping-pong if it turns round at this share of its speed or more.
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
                raise LoopAnimateError(f"threshold {field.name} ({value}) must be a number above 0")


@dataclass(frozen=True)
class LoopReport:
    """What was measured, and the verdict. Ratios are None for a clip without motion.

    Attributes:
        frames: frames that play (a dropped duplicate is not counted).
        fps, duration_s: playing speed and length, None when no fps was given.
        dropped_duplicate: the last frame repeated the first and was left out.
        period_frames: frames after which the clip repeats; `frames` when it holds the loop once.
        steps: mean absolute difference of every frame to the next, 0..255; the last one is the seam.
        motion: median step without the seam. max_distance: largest distance to frame 0.
        ssim_adjacent: mean SSIM of neighbours, the paper's "Motion" (higher = less motion).
        seam_ratio: seam step over median step; two-sided, 1 is ideal, 0 is a held frame.
        seam_jump: seam step over the largest of the four around it, on shrunk frames.
        seam_pop: the same at full size.
        seam_acceleration: largest change of motion next to the seam over the median one.
        stall_frames: steps at rest at the seam.
        colour_step, colour_drift: CIE76 difference of the mean colour across the seam, and its linear
            trend over the clip.
        mirror_error: distance of the frames to their best mirror image in time, over the median step.
        mirror_attack: how abruptly that mirror turns round (1 = at full speed).
        mse_f0: squared error of frame 0 to the reference picture, 0..255 squared; paper's MSE_F0.
        clip_i: mean cosine of frames to the reference. fc: of neighbours. loop_c: of first and last.
        passed, reasons, summary: the verdict; reasons are keys of `REASONS`.
    """

    frames: int
    fps: float | None
    dropped_duplicate: bool
    period_frames: int
    steps: tuple[float, ...]
    motion: float
    max_distance: float
    ssim_adjacent: float
    seam_ratio: float | None
    seam_jump: float | None
    seam_pop: float | None
    seam_acceleration: float | None
    stall_frames: int
    colour_step: float
    colour_drift: float
    mirror_error: float | None
    mirror_attack: float | None
    mse_f0: float | None
    clip_i: float | None
    fc: float | None
    loop_c: float | None
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.reasons

    @property
    def duration_s(self) -> float | None:
        return self.frames / self.fps if self.fps else None

    @property
    def repeats(self) -> int:
        return self.frames // self.period_frames

    @property
    def verdict(self) -> str:
        """`seamless`, or the reasons in a few words."""
        return ", ".join(reason.replace("_", " ") for reason in self.reasons) or "seamless"

    @property
    def summary(self) -> str:
        """The verdict as plain sentences."""
        held = f"{self.frames} frames"
        if self.repeats > 1:
            held += f" (a loop of {self.period_frames}, {self.repeats} times)"
        if not self.reasons:
            seam = "" if self.seam_ratio is None else f", {self.seam_ratio:.2f} times the usual one"
            return (
                f"Seamless: {held}, seam step {self.steps[-1]:.2f} of 255{seam}, largest distance to"
                f" the first frame {self.max_distance:.1f}."
            )
        return f"Not seamless, {held}: {'; '.join(REASONS[reason] for reason in self.reasons)}."

    def to_dict(self) -> dict[str, object]:
        """Everything as JSON-able values; what could not be measured is None."""
        report = dataclasses.asdict(self)
        report.update(
            steps=list(self.steps),
            reasons=list(self.reasons),
            passed=self.passed,
            duration_s=self.duration_s,
            repeats=self.repeats,
            verdict=self.verdict,
            summary=self.summary,
        )
        return report


@torch.no_grad()
def check_loop(
    frames: torch.Tensor,
    *,
    fps: float | None = None,
    closed: bool | Literal["auto"] = False,
    reference: Picture | torch.Tensor | None = None,
    image_encoder: ImageEncoder | None = None,
    thresholds: LoopThresholds | None = None,
) -> LoopReport:
    """Measure a clip as a loop and say whether, and why not, it plays without a visible seam.

    Args:
        frames: `[F, H, W, 3]` in 0..1, at least 4.
        fps: playing speed, only for the duration.
        closed: False scores the frames as they play, so a repeated first frame at the end is a fault.
            True says that the last frame is the first again and leaves it out, `auto` leaves it out
            only if it is.
        reference: the still picture, for `mse_f0` and `clip_i`; cropped and resized to the frames.
        image_encoder: pictures `[N, H, W, 3]` to embeddings `[N, D]`, for the CLIP figures.
        thresholds: the limits of the verdict.

    Raises:
        LoopAnimateError: a wrong shape, fewer than 4 frames, values that are not finite, or fps not
            above 0.
    """
    frames = _checked(frames, fps)
    dropped = _ends_on_the_first(frames) if closed == "auto" else bool(closed)
    if dropped:
        frames = frames[:-1]
    limits = thresholds or LoopThresholds()
    found = _analyse(frames)
    still = _fitted(reference, frames)
    clip_i, fc, loop_c = _clip_figures(frames, still, image_encoder)
    seam = found.measurable
    return LoopReport(
        frames=len(frames),
        fps=fps,
        dropped_duplicate=dropped,
        period_frames=found.period,
        steps=tuple(found.steps.tolist()),
        motion=found.median,
        max_distance=max(float(measures.distance(frame, frames[0])) for frame in frames),
        ssim_adjacent=measures.ssim_adjacent(frames),
        seam_ratio=float(found.steps[-1]) / found.median if seam else None,
        seam_jump=_seam_over_surroundings(measures.step_sizes(found.coarse), JUMP_FLOOR)
        if seam
        else None,
        seam_pop=_seam_over_surroundings(found.steps, POP_FLOOR) if seam else None,
        seam_acceleration=_seam_acceleration(found.coarse) if seam else None,
        stall_frames=_rest(found.moving_steps, limits)[0],
        colour_step=float((found.colours[0] - found.colours[-1]).norm()),
        colour_drift=float(measures.slope(found.colours).norm()) * (len(frames) - 1),
        mirror_error=found.mirror.error / found.tiny_step if found.tiny_step else None,
        mirror_attack=found.mirror.attack if seam else None,
        mse_f0=None if still is None else measures.mse_255(frames[0], still),
        clip_i=clip_i,
        fc=fc,
        loop_c=loop_c,
        reasons=_reasons(found, limits),
    )


def check_file(
    path: str | os.PathLike[str],
    *,
    reference: Picture | torch.Tensor | None = None,
    image_encoder: ImageEncoder | None = None,
    thresholds: LoopThresholds | None = None,
) -> LoopReport:
    """Decode a video file and check it as a player shows it: from its last frame to its first.

    A file may hold its loop several times; then the seam scored is still the file's own restart, the
    worst one, because encoders repaint the picture there. `period_frames` gives the loop's length.

    Raises:
        LoopAnimateError: the file cannot be read, or holds fewer than 4 frames.
    """
    from ..video import read_video

    frames, fps = read_video(Path(path))
    return check_loop(
        frames,
        fps=fps,
        reference=reference,
        image_encoder=image_encoder,
        thresholds=thresholds,
    )


@dataclass(frozen=True)
class _Analysis:
    """What report and verdict are made of. See `check_measures` for the terms.

    A loop that is repeated is averaged over its repeats for everything about its motion: that takes
    most of what an encoder added. Its seam is scored at the restart, where the encoder begins anew.

    Attributes:
        steps: at full size, of all frames; median: of `steps` without the seam.
        coarse: all frames shrunk to 64 px; colours: their mean colours, L*a*b*.
        period: frames of the loop.
        moving_steps: of the averaged loop at 64 px, without grain.
        around: distance of the frames either side of the seam over the path across it.
        change: 99.5 % of the pixels at 32 px never leave frame 0 by more.
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


def _checked(frames: torch.Tensor, fps: float | None) -> torch.Tensor:
    if len(require_frames(frames)) < MIN_FRAMES:
        raise LoopAnimateError(
            f"{len(frames)} frames are too few to check, {MIN_FRAMES} or more are needed"
        )
    if not all(bool(frame.isfinite().all()) for frame in frames):
        raise LoopAnimateError("the frames hold values that are not finite, expected 0..1")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise LoopAnimateError(f"fps ({fps}) must be a number above 0")
    return frames


def _ends_on_the_first(frames: torch.Tensor) -> bool:
    if len(frames) <= MIN_FRAMES:
        return False
    steps = measures.step_sizes(measures.shrink(frames, measures.COARSE_PX))
    return bool(steps[-1] < 0.02 * steps[:-1].median() + 0.01)


def _analyse(frames: torch.Tensor) -> _Analysis:
    steps = measures.step_sizes(frames)
    coarse = measures.shrink(frames, measures.COARSE_PX)
    period = _period(coarse)
    loop = coarse.unflatten(0, (-1, period)).mean(0)
    moving_steps = measures.moving_steps(loop)
    across = measures.moving_distance(loop[-2], loop[1])
    tiny = measures.shrink(loop, measures.MATRIX_PX)
    change = (tiny - tiny[:1]).abs().mean(-1).flatten(1).quantile(0.995, dim=1).max()
    return _Analysis(
        steps=steps,
        coarse=coarse,
        period=period,
        colours=measures.mean_colours(coarse),
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


def _seam_over_surroundings(steps: torch.Tensor, floor: float) -> float:
    """Seam step over the largest of the four around it, which counts as `floor` medians at least."""
    usual = max(float(measures.seam_surroundings(steps)), floor * float(steps[:-1].median()))
    return float(steps[-1]) / (usual + NOISE_LEVEL)


def _seam_acceleration(coarse: torch.Tensor) -> float:
    accelerations = measures.accelerations(coarse)
    return float(accelerations[[0, -1]].max() / (accelerations.median() + NOISE_LEVEL))


def _rest(steps: torch.Tensor, limits: LoopThresholds) -> tuple[int, int]:
    return measures.slow_run(steps, limits.stall_ratio * float(steps[:-1].median()))


def _reasons(found: _Analysis, limits: LoopThresholds) -> tuple[str, ...]:
    if found.change < limits.frozen_change:
        return ("frozen",)
    drifts = _colour_snaps(found.colours, limits)
    # A colour that snaps back is a jump too; it is one besides only if the shapes jump as well.
    recoloured = measures.match_colours(found.coarse) if drifts else found.coarse
    seam = _seam_over_surroundings(measures.step_sizes(recoloured), JUMP_FLOOR)
    jumps = seam > limits.jump_ratio
    texture = _seam_over_surroundings(found.steps, POP_FLOOR)
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
    """The mean colour steps at the seam, and not because motion around it changes it as much."""
    steps = (colours.roll(-1, 0) - colours).norm(dim=1)
    seam = float(steps[-1])
    return seam > limits.colour_step and seam > 2 * float(measures.seam_surroundings(steps))


def _is_held(found: _Analysis, limits: LoopThresholds) -> bool:
    """Hardly a step at the seam, although motion comes and goes at speed or goes straight on.

    A natural turning point between two frames has as small a step; there motion leaves gently, the
    way it came.
    """
    steps = found.moving_steps
    if float(steps[-1]) >= limits.held_ratio * float(torch.minimum(steps[-2], steps[0])):
        return False
    abrupt = max(measures.attack(steps, 0, 1), measures.attack(steps, -2, -1))
    return abrupt >= limits.held_attack or found.around >= limits.held_around


def _stalls(found: _Analysis, limits: LoopThresholds) -> bool:
    """A rest at the seam that the motion itself does not take elsewhere."""
    at_seam, elsewhere = _rest(found.moving_steps, limits)
    return at_seam > max(3, limits.stall_share * found.period) and at_seam > elsewhere


def _is_ping_pong(found: _Analysis, limits: LoopThresholds) -> bool:
    """Mirrored in time nearly exactly, with an abrupt turn. Eased turns are how things swing."""
    mirrored = found.mirror.error < limits.mirror_ratio * found.tiny_step
    return mirrored and found.mirror.attack >= limits.mirror_attack


def _fitted(reference: Picture | torch.Tensor | None, frames: torch.Tensor) -> torch.Tensor | None:
    """The reference picture at the frames' size, `[H, W, 3]`."""
    if reference is None:
        return None
    rgb = reference.over() if isinstance(reference, Picture) else require_rgb(reference)
    return fit_pixels(rgb, frames.shape[1], frames.shape[2]).to(frames.device)


def _clip_figures(
    frames: torch.Tensor, still: torch.Tensor | None, image_encoder: ImageEncoder | None
) -> tuple[float | None, float | None, float | None]:
    """CLIP-I, FC and Loop-C as the paper uses them: mean cosines of image embeddings."""
    if image_encoder is None:
        return None, None, None
    embeddings = F.normalize(image_encoder(frames).float(), dim=-1)
    clip_i = None
    if still is not None:
        target = F.normalize(image_encoder(still[None]).float(), dim=-1)
        clip_i = float((embeddings @ target[0]).mean())
    neighbours = (embeddings[1:] * embeddings[:-1]).sum(-1)
    return clip_i, float(neighbours.mean()), float(embeddings[0] @ embeddings[-1])
