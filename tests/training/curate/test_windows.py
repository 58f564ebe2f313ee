"""Where the windows of a clip begin, and which rows they become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from h264 import write_video

from loopanimate_training.curate.windows import seconds_of, window_starts
from loopanimate_training.data.readers.rows import Blob
from loopanimate_training.data.video.facts import source_frames
from loopanimate_training.data.video.frames import read_video
from loopanimate_training.data.video.scan import scan_video


@pytest.mark.parametrize("count", [103, 104, 150, 280, 1800])
@pytest.mark.parametrize("most", [1, 2, 4, 64])
@pytest.mark.parametrize("step", [1, 3])
def test_windows_fit_and_reach_both_ends(count: int, most: int, step: int) -> None:
    starts = window_starts(count, 103, most, step)
    assert not any(start % step for start in starts)
    assert starts == sorted(set(starts)) and 1 <= len(starts) <= most
    assert starts[0] == 0 and starts[-1] + 103 <= count
    if len(starts) > 1:
        assert starts[-1] + 103 > count - step


def test_short_clips_have_none() -> None:
    assert window_starts(102, 103, 4) == []


@pytest.mark.parametrize("clip_start_s", [None, 7.3 / 24])
def test_a_part_named_by_its_seconds_has_the_frames_of_the_window(
    tmp_path: Path, clip_start_s: float | None
) -> None:
    """Frames say their number by their brightness. A frame more at the end does no harm."""
    frames = np.stack([np.full((32, 32, 3), 5 * n, np.uint8) for n in range(48)])
    media = Blob(write_video(tmp_path / "numbered.mp4", frames))
    whole = scan_video(media, clip_start_s)
    first, end = 11, 30
    part = scan_video(media, *seconds_of(whole, first, end, clip_start_s, None))
    assert end - first <= part.frames <= end - first + (clip_start_s is not None)
    wanted, found = (
        read_video(media, source_frames(facts, numbers, None).tolist(), facts)
        for facts, numbers in ((whole, [first, end - 1]), (part, [0, end - first - 1]))
    )
    assert np.abs(wanted.astype(int) - found.astype(int)).max() <= 2
