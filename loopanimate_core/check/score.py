"""Measuring frames (`check_loop`) or a decoded video file (`check_file`) as a loop.

The measurements are explained in docs/loop-check.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

from ..errors import LoopAnimateError
from ..picture.images import Picture, fit_pixels, require_frames, require_rgb
from . import measures
from .report import LoopReport
from .verdict import (
    JUMP_FLOOR,
    POP_FLOOR,
    LoopThresholds,
    analyse,
    find_faults,
    rest_at_seam,
    seam_acceleration,
    seam_over_surroundings,
)

MIN_FRAMES = 4

ImageEncoder = Callable[[torch.Tensor], torch.Tensor]


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
    """Measure a clip as a loop: does it play without a visible seam, and if not, why?

    Args:
        frames: `[F, H, W, 3]` in 0..1, at least 4.
        fps: playing speed, used only for the duration.
        closed: True if the last frame repeats the first: it is not measured. False measures all frames
            as they play, so that such a frame is a fault. `auto` skips the last frame only if it
            repeats the first.
        reference: the still picture, for `mse_f0` and `clip_i`; cropped and resized to the frames.
        image_encoder: pictures `[N, H, W, 3]` to embeddings `[N, D]`, for the CLIP scores.
        thresholds: the limits of the verdict.

    Raises:
        LoopAnimateError: a wrong shape, fewer than 4 frames, NaN or infinite values, or fps not above 0.
    """
    frames = _checked(frames, fps)
    dropped = _ends_on_the_first(frames) if closed == "auto" else bool(closed)
    if dropped:
        frames = frames[:-1]
    limits = thresholds or LoopThresholds()
    found = analyse(frames)
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
        seam_jump=seam_over_surroundings(measures.step_sizes(found.coarse), JUMP_FLOOR)
        if seam
        else None,
        seam_pop=seam_over_surroundings(found.steps, POP_FLOOR) if seam else None,
        seam_acceleration=seam_acceleration(found.coarse) if seam else None,
        stall_frames=rest_at_seam(found.moving_steps, limits)[0],
        colour_step=float((found.colours[0] - found.colours[-1]).norm()),
        colour_drift=float(measures.slope(found.colours).norm()) * (len(frames) - 1),
        mirror_error=found.mirror.error / found.tiny_step if found.tiny_step else None,
        mirror_attack=found.mirror.attack if seam else None,
        mse_f0=None if still is None else measures.mse_255(frames[0], still),
        clip_i=clip_i,
        fc=fc,
        loop_c=loop_c,
        reasons=find_faults(found, limits),
    )


def check_file(
    path: str | os.PathLike[str],
    *,
    reference: Picture | torch.Tensor | None = None,
    image_encoder: ImageEncoder | None = None,
    thresholds: LoopThresholds | None = None,
) -> LoopReport:
    """Decode a video file and check it as a player shows it: from its last frame to its first.

    A file may contain its loop several times. The seam that counts is the restart of the file, where
    encoders change the picture most. `period_frames` is the length of the loop.

    Raises:
        LoopAnimateError: the file cannot be read, or has fewer than 4 frames.
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


def _checked(frames: torch.Tensor, fps: float | None) -> torch.Tensor:
    if len(require_frames(frames)) < MIN_FRAMES:
        raise LoopAnimateError(
            f"a loop check needs at least {MIN_FRAMES} frames, got {len(frames)}"
        )
    if not all(bool(frame.isfinite().all()) for frame in frames):
        raise LoopAnimateError("frames must be in 0..1, got NaN or infinite values")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise LoopAnimateError(f"fps must be above 0, got {fps}")
    return frames


def _ends_on_the_first(frames: torch.Tensor) -> bool:
    if len(frames) <= MIN_FRAMES:
        return False
    steps = measures.step_sizes(measures.shrink(frames, measures.COARSE_PX))
    return bool(steps[-1] < 0.02 * steps[:-1].median() + 0.01)


def _fitted(reference: Picture | torch.Tensor | None, frames: torch.Tensor) -> torch.Tensor | None:
    """The reference picture at the frames' size, `[H, W, 3]`."""
    if reference is None:
        return None
    rgb = reference.over() if isinstance(reference, Picture) else require_rgb(reference)
    return fit_pixels(rgb, frames.shape[1], frames.shape[2]).to(frames.device)


def _clip_figures(
    frames: torch.Tensor, still: torch.Tensor | None, image_encoder: ImageEncoder | None
) -> tuple[float | None, float | None, float | None]:
    """The paper's CLIP-I, FC and Loop-C: mean cosines of image embeddings."""
    if image_encoder is None:
        return None, None, None
    embeddings = F.normalize(image_encoder(frames).float(), dim=-1)
    clip_i = None
    if still is not None:
        target = F.normalize(image_encoder(still[None]).float(), dim=-1)
        clip_i = float((embeddings @ target[0]).mean())
    neighbours = (embeddings[1:] * embeddings[:-1]).sum(-1)
    return clip_i, float(neighbours.mean()), float(embeddings[0] @ embeddings[-1])
