"""The figures of one loop, and of many: Table 2 of the paper, and what it does not ask.

`check_loop` measures; here are only the optical flow, the seam of the written file, and the statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..check import ImageEncoder, check_file, check_loop
from ..extras import require_module
from ..picture.images import Picture, to_uint8
from ..picture.sheet import shrink_frames
from ..video import write_video
from .store import Clip

MEASURES = 1  # raised when a figure is computed in another way
FLOW_PX = 256
RESAMPLES, CONFIDENCE = 2000, 0.95


@dataclass(frozen=True)
class Figure:
    """A column of the table.

    Attributes:
        title: with an arrow if more or less is better; `1` stands for a ratio that should be near 1.
        digits: after the point.
        encoded: whether the image encoder decides it.
        paper: whether it is a column of the paper's Table 2.
    """

    key: str
    title: str
    better: str
    digits: int
    meaning: str
    encoded: bool = False
    paper: bool = False


FIGURES = (
    Figure("clip_i", "CLIP-I", "↑", 3, "frames against the picture, mean cosine", True, True),
    Figure(
        "mse_f0", "MSE_F0", "↓", 1, "first frame against the picture, 0..255 squared", paper=True
    ),
    Figure("fc", "FC", "↑", 3, "neighbouring frames, mean cosine", True, True),
    Figure("ssim", "Motion", "↑", 3, "SSIM of neighbours; 1 = nothing moves", paper=True),
    Figure("loop_c", "Loop-C", "↑", 3, "first and last frame, cosine", True, True),
    Figure("frames", "Frames", "↑", 0, "frames that play", paper=True),
    Figure("seam", "Seam", "1", 2, "step across the seam over the median step"),
    Figure("file_seam", "Seam in file", "1", 2, "the same after writing an mp4 and decoding it"),
    Figure("stall", "Stall", "↓", 1, "steps without motion at the seam"),
    Figure("drift", "Drift", "↓", 2, "trend of the mean colour over the loop, CIE76"),
    Figure("flow", "Flow", "", 2, "optical flow per frame, mean, % of the longer side"),
    Figure("step", "Step", "", 2, "median difference of neighbours, 0..255"),
)


def measure_clip(clip: Clip, picture: Picture, encoder: ImageEncoder, file: Path) -> dict[str, Any]:
    """Measure a loop, and the file it is written to.

    Args:
        picture: the still; the loop is compared with its middle part of the loop's shape.
        file: where the loop is written, with the defaults of its format, and decoded again.

    Returns:
        A value for each of `FIGURES` (None where it has none), and the verdicts on the frames and on the file.

    Raises:
        LoopAnimateError: the loop has fewer than 4 frames, or the file cannot be written.
    """
    report = check_loop(clip.frames, fps=clip.fps, reference=picture, image_encoder=encoder)
    write_video(clip.frames, file, fps=clip.fps)
    decoded = check_file(file)
    return {
        "clip_i": report.clip_i,
        "mse_f0": report.mse_f0,
        "fc": report.fc,
        "ssim": report.ssim_adjacent,
        "loop_c": report.loop_c,
        "frames": report.frames,
        "seam": report.seam_ratio,
        "file_seam": decoded.seam_ratio,
        "stall": report.stall_frames,
        "drift": report.colour_drift,
        "flow": mean_flow_percent(clip.frames),
        "step": report.motion,
        "verdict": report.verdict,
        "passed": report.passed,
        "file_verdict": decoded.verdict,
        "file_passed": decoded.passed,
        "fps": clip.fps,
        "width_px": clip.frames.shape[2],
        "height_px": clip.frames.shape[1],
    }


def mean_flow_percent(frames: Tensor) -> float:
    """How far a pixel moves from a frame to the next, on average, in percent of the longer side.

    OpenCV's DIS optical flow on grey frames `[P, H, W, 3]` shrunk to at most 256 px; the seam is not counted.
    """
    cv2 = require_module("cv2", "the optical flow of an evaluation")
    small = to_uint8(shrink_frames(frames, FLOW_PX)).numpy()
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in small]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    lengths = [
        float(np.linalg.norm(flow.calc(before, after, None), axis=-1).mean())
        for before, after in pairwise(grey)
    ]
    return 100 * float(np.mean(lengths)) / max(grey[0].shape)


def interval(values: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """The bootstrap's 95 % interval of the mean (percentiles); None for fewer than two values."""
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(seed).choice(np.asarray(values, float), (RESAMPLES, len(values)))
    return percentiles(drawn.mean(1))


def percentiles(means: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of resampled means."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
