"""What decoding a clip showed, and which of its frames a run at a given rate takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class VideoFacts:
    """What decoding a clip showed. Headers are not trusted.

    Attributes:
        frames: number of frames that decode, up to the first damage.
        width_px, height_px: as displayed, after the rotation stored in the file.
        rotation: quarter turns counter-clockwise stored in the file.
        tick_s: seconds per unit of presentation time.
        first_pts: presentation time of the first frame, in ticks.
        ticks_per_frame: average distance of two frames; 0 for folders of pictures, which have no times.
        times: presentation time of every frame, in ticks; empty when the frames are evenly spaced.
        damaged: whether decoding stopped before the end of the file.
        counted: whether frames have no usable times and are found by counting from the start.
    """

    frames: int
    width_px: int = 0
    height_px: int = 0
    rotation: int = 0
    tick_s: float = 1.0
    first_pts: int = 0
    ticks_per_frame: float = 1.0
    times: tuple[int, ...] = ()
    damaged: bool = False
    counted: bool = False

    @property
    def fps(self) -> float:
        """Average frames per second; 0 for folders of pictures."""
        seconds = self.ticks_per_frame * self.tick_s
        return 1 / seconds if seconds > 0 else 0.0

    def time_of(self, index: int) -> float:
        """Presentation time of a frame, in ticks."""
        if self.times:
            return self.times[index]
        return self.first_pts + index * self.ticks_per_frame


NOTHING_DECODED = VideoFacts(frames=0)


def resampled_counts(frames: ArrayLike, clip_fps: ArrayLike, fps: float | None) -> np.ndarray:
    """Number of frames that clips of `frames` frames have when resampled to `fps`, int64 of the same shape.

    Clips without a rate (`clip_fps` 0) keep their frames, and so do all clips without `fps`.
    """
    frames, rates = np.asarray(frames, np.int64), np.asarray(clip_fps, np.float64)
    if fps is None:
        return frames
    share = np.divide(fps, rates, out=np.ones_like(rates), where=rates > 0)
    resampled = np.floor((frames - 1) * share + 1e-6).astype(np.int64) + 1
    return np.where((frames > 0) & (rates > 0), resampled, frames)


def source_frames(facts: VideoFacts, indices: Sequence[int], fps: float | None) -> np.ndarray:
    """Numbers of the decoded frames nearest in time to frames `indices` at `fps`, [n] int64.

    Without `fps` the clip's own average rate counts, so an evenly spaced clip is not changed.
    """
    wanted = np.asarray(indices, np.float64)
    if fps is not None and facts.fps > 0:
        wanted = wanted * (facts.fps / fps)
    if not facts.times:
        return np.floor(wanted + 0.5 - 1e-6).astype(np.int64).clip(0, max(facts.frames - 1, 0))
    positions = (np.asarray(facts.times) - facts.first_pts) / (facts.ticks_per_frame or 1.0)
    if len(positions) == 1:
        return np.zeros(len(wanted), np.int64)
    right = np.searchsorted(positions, wanted).clip(1, len(positions) - 1)
    left_is_nearer = wanted - positions[right - 1] <= positions[right] - wanted
    return np.where(left_is_nearer, right - 1, right)
