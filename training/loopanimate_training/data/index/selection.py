"""Which clips of an index a run trains on, which it holds out, and why it skips the others."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loopanimate_core.errors import LoopAnimateError

from ...config import ClipConfig, DataConfig
from ..video.facts import resampled_counts
from .table import ClipTable

NO_CAPTION = "without a caption (data.uncaptioned: keep)"
HELD_OUT = "held out"
SLOWEST = 0.98  # of clip.fps: 23.98 frames per second count as 24

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """Which rows of an index are used under a run's settings.

    Attributes:
        reasons: why rows are not trained on; the first is "", for rows that are.
        codes: `[rows]`, for each row the number of its reason.
        frames: `[rows]`, number of frames at the run's rate.
    """

    reasons: tuple[str, ...]
    codes: np.ndarray
    frames: np.ndarray

    def rows(self, reason: str = "") -> np.ndarray:
        """The rows with a reason, ascending; "" for those to train on."""
        if reason not in self.reasons:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.codes == self.reasons.index(reason))

    def counts(self) -> dict[str, int]:
        """Number of rows per reason, the most common first."""
        counts = np.bincount(self.codes, minlength=len(self.reasons)).tolist()
        found = {reason: n for reason, n in zip(self.reasons, counts, strict=True) if n}
        return dict(Counter(found).most_common())


def select(table: ClipTable, data: DataConfig, clip: ClipConfig) -> Selection:
    """Choose the rows of an index that a run trains on, and give the others a reason."""
    frames = resampled_counts(table.column("frames"), frame_rates(table), clip.fps)
    reasons, codes = list(table.reasons), table.column("reason").astype(np.uint8)

    def skip(rows: np.ndarray, reason: str) -> None:
        codes[(codes == 0) & rows] = len(reasons)
        reasons.append(reason)

    if data.uncaptioned == "skip":
        skip(table.column("lengths")[:, 2] == 0, NO_CAPTION)
    if clip.fps is not None:
        rates = frame_rates(table)
        slow = (rates > 0) & (rates < SLOWEST * clip.fps)
        skip(slow, f"slower than {clip.fps:g} frames per second")
    skip(frames < clip.span_frames, f"shorter than {clip.span_frames} frames")
    skip(is_held_out(table.column("origin"), data.held_out_share), HELD_OUT)
    return Selection(tuple(reasons), codes, frames)


def require_clips(selection: Selection, path: Path) -> None:
    """Log how many clips of the data set at `path` are skipped, and why.

    Raises:
        LoopAnimateError: no clip is left to train on; the message counts the reasons.
    """
    counts = selection.counts()
    used, total = counts.pop("", 0), len(selection.codes)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    if not used:
        raise LoopAnimateError(f"none of {total} clips of {path} can be used: {reasons}")
    if counts:
        _log.warning("%d of %d clips of %s are used; skipped: %s", used, total, path, reasons)


def frame_rates(table: ClipTable) -> np.ndarray:
    """Frames per second of every row; 0 for folders of pictures."""
    seconds = table.column("ticks_per_frame") * table.column("tick_s")
    return np.divide(1.0, seconds, out=np.zeros(len(table)), where=seconds > 0)


def is_held_out(origins: np.ndarray, share: float) -> np.ndarray:
    """Which clips are kept for validation: chosen by a hash of their file, so that the choice does not
    depend on order, later additions or the stage, and clips cut from one video stay together."""
    if share <= 0:
        return np.zeros(len(origins), bool)
    # Mixed once more, so that the choice is independent of other uses of the hash.
    mixed = (origins * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)
    return mixed < np.uint64(int(share * (1 << 53)))
