"""Parts of a clip as long as a training clip: where they begin, and which of them are good together."""

from __future__ import annotations

import math

from ..data.video.facts import VideoFacts, source_frames


def window_starts(count: int, span: int, most: int, step: int = 1) -> list[int]:
    """First frames of at most `most` windows of `span` frames, spread evenly over `count` frames: multiples of `step`.

    They overlap by half where there are enough of them.
    """
    room = count - span
    if room < 0 or most < 1:
        return []
    wanted = min(most, 1 + math.ceil(room / max(1, (span - 1) // 2)))
    if wanted == 1:
        return [0]
    steps = room // step
    return sorted({step * round(steps * n / (wanted - 1)) for n in range(wanted)})


def seconds_of(
    facts: VideoFacts, first: int, end: int, clip_start_s: float | None, fps: float | None
) -> tuple[float, float]:
    """`start_s` and `end_s` of a row that has the frames from `first` to before `end` of a clip.

    Args:
        clip_start_s: where the clip itself begins in its file.
        fps: the rate that counts the frames; None for the file's own.
    """
    frame_s = facts.ticks_per_frame * facts.tick_s
    begin, last = (
        (facts.time_of(int(number)) - facts.first_pts) * facts.tick_s
        for number in source_frames(facts, [first, end - 1], fps)
    )
    offset_s = clip_start_s or 0.0
    # Rounding must not cost a frame at either end; one more does no harm. Where the clip begins within a frame is
    # only known if it begins with its file.
    spare_s = frame_s / 4 if clip_start_s is None else 0.0
    return max(0.0, offset_s + begin - frame_s / 4), offset_s + last + frame_s - spare_s
