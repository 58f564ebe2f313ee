"""Measuring frames (`check_loop`) or a decoded video file (`check_file`) as a loop.

The measurements are explained in docs/loop-check.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch

from ..errors import LoopAnimateError
from ..picture.images import Picture, fit_pixels, require_frames, require_rgb
from . import measures
from .meter import FrameMeter, ImageEncoder, Measured, embed
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
            as they play, and such a frame is a fault. `auto` skips the last frame only if it
            repeats the first.
        reference: the still picture, for `mse_f0` and `clip_i`; cropped and resized to the frames.
        image_encoder: pictures `[N, H, W, 3]` to embeddings `[N, D]`, for the CLIP scores.
        thresholds: the limits of the verdict.

    Raises:
        LoopAnimateError: a wrong shape, fewer than 4 frames, NaN or infinite values, or fps not above 0.
    """
    frames = require_frames(frames)
    _check_length(len(frames))
    _check_fps(fps)
    dropped = _ends_on_the_first(frames) if closed == "auto" else bool(closed)
    clip = _measured(frames[:-1] if dropped else frames, image_encoder)
    return _report(clip, fps, dropped, reference, image_encoder, thresholds)


@torch.no_grad()
def check_file(
    path: str | os.PathLike[str],
    *,
    reference: Picture | torch.Tensor | None = None,
    image_encoder: ImageEncoder | None = None,
    thresholds: LoopThresholds | None = None,
) -> LoopReport:
    """Decode a video file and check it as a player shows it: from its last frame to its first.

    Frames are measured as they are decoded, so a video of any length takes the same memory. Of more than 1280
    frames, those around the seam decide about jumps, stops and turns.

    A file may contain its loop several times. The seam that counts is the restart of the file, where
    encoders change the picture most. `period_frames` is the length of the loop.

    Raises:
        LoopAnimateError: the file cannot be read, or has fewer than 4 frames.
    """
    from ..video.read import stream_video, to_tensor

    pictures, fps = stream_video(Path(path))
    _check_fps(fps)
    clip = _measured(map(to_tensor, pictures), image_encoder)
    _check_length(clip.frames)
    return _report(clip, fps, False, reference, image_encoder, thresholds)


def _measured(frames: Iterable[torch.Tensor], image_encoder: ImageEncoder | None) -> Measured:
    meter = FrameMeter(image_encoder)
    for frame in frames:
        meter.add(frame)
    return meter.finish()


def _report(
    clip: Measured,
    fps: float | None,
    dropped: bool,
    reference: Picture | torch.Tensor | None,
    image_encoder: ImageEncoder | None,
    thresholds: LoopThresholds | None,
) -> LoopReport:
    limits = thresholds or LoopThresholds()
    found = analyse(clip)
    still = _fitted(reference, clip.first)
    clip_i, fc, loop_c = _clip_figures(clip.embeddings, still, image_encoder)
    seam = found.measurable
    return LoopReport(
        frames=clip.frames,
        fps=fps,
        dropped_duplicate=dropped,
        period_frames=found.period,
        steps=tuple(found.steps.tolist()),
        motion=found.median,
        max_distance=clip.max_distance,
        ssim_adjacent=clip.ssim,
        seam_ratio=float(found.steps[-1]) / found.median if seam else None,
        seam_jump=seam_over_surroundings(measures.step_sizes(found.coarse), JUMP_FLOOR)
        if seam
        else None,
        seam_pop=seam_over_surroundings(found.steps, POP_FLOOR) if seam else None,
        seam_acceleration=seam_acceleration(found.coarse) if seam else None,
        stall_frames=rest_at_seam(found.moving_steps, limits)[0],
        colour_step=float((found.colours[0] - found.colours[-1]).norm()),
        colour_drift=float(measures.slope(found.colours).norm()) * (clip.frames - 1),
        mirror_error=found.mirror.error / found.tiny_step if found.tiny_step else None,
        mirror_attack=found.mirror.attack if seam else None,
        mse_f0=None if still is None else measures.mse_255(clip.first, still),
        clip_i=clip_i,
        fc=fc,
        loop_c=loop_c,
        reasons=find_faults(found, limits),
    )


def _check_length(frames: int) -> None:
    if frames < MIN_FRAMES:
        raise LoopAnimateError(f"a loop check needs at least {MIN_FRAMES} frames, got {frames}")


def _check_fps(fps: float | None) -> None:
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise LoopAnimateError(f"fps must be above 0, got {fps}")


def _ends_on_the_first(frames: torch.Tensor) -> bool:
    if len(frames) <= MIN_FRAMES:
        return False
    steps = measures.step_sizes(measures.shrink(frames, measures.COARSE_PX))
    return bool(steps[-1] < 0.02 * steps[:-1].median() + 0.01)


def _fitted(reference: Picture | torch.Tensor | None, frame: torch.Tensor) -> torch.Tensor | None:
    """The reference picture at the frame's size, `[H, W, 3]`."""
    if reference is None:
        return None
    rgb = reference.over() if isinstance(reference, Picture) else require_rgb(reference)
    return fit_pixels(rgb, frame.shape[0], frame.shape[1]).to(frame.device)


def _clip_figures(
    embeddings: torch.Tensor | None,
    still: torch.Tensor | None,
    image_encoder: ImageEncoder | None,
) -> tuple[float | None, float | None, float | None]:
    """The paper's CLIP-I, FC and Loop-C: mean cosines of image embeddings."""
    if embeddings is None or image_encoder is None:
        return None, None, None
    clip_i = None
    if still is not None:
        clip_i = float((embeddings @ embed(image_encoder, still[None])[0]).mean())
    neighbours = (embeddings[1:] * embeddings[:-1]).sum(-1)
    return clip_i, float(neighbours.mean()), float(embeddings[0] @ embeddings[-1])
