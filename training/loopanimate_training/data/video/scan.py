"""Decoding a whole video once, to learn what is really in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ..readers.rows import Blob
from .bad_clip import BadClip
from .container import DECODER_ERRORS, can_seek, decoded_frames, open_video, start_of
from .facts import VideoFacts


def scan_video(media: Blob, start_s: float | None = None, end_s: float | None = None) -> VideoFacts:
    """Decode a file, or the part from `start_s` (included) to `end_s` (excluded).

    A file that is damaged further on counts with its good beginning. Frames without usable times (H.264 in
    .avi) are counted instead, at the rate that the file states.

    Raises:
        BadClip: nothing can be decoded, or a part is asked for and the frames have no times.
    """
    try:
        scan = _scan(media, start_s, end_s, seek=bool(start_s))
        if start_s and (not scan.times or scan.overshot):
            scan = _scan(media, start_s, end_s, seek=False)
    except DECODER_ERRORS as error:
        raise BadClip(f"{media.path} cannot be decoded ({error})") from error
    if not scan.times:
        part = " between start_s and end_s" if start_s or end_s is not None else ""
        raise BadClip(f"{media.path} has no video frames{part}")
    width, height, degrees = scan.shown
    rotation = round(degrees / 90) % 4
    if rotation % 2:
        width, height = height, width
    facts = VideoFacts(len(scan.times), width, height, rotation, scan.tick_s, damaged=scan.damaged)
    times = [time for time in scan.times if time is not None]
    if len(times) == len(scan.times) and all(a < b for a, b in pairwise(times)):
        return _with_times(facts, times)
    if start_s or end_s is not None:
        raise BadClip(f"{media.path} has no frame times, so a part of it cannot be used")
    return replace(facts, tick_s=scan.stated_frame_s, counted=True)


def _with_times(facts: VideoFacts, times: Sequence[int]) -> VideoFacts:
    """Add the frame times, as a start and a step if they are evenly spaced."""
    step = (times[-1] - times[0]) / max(len(times) - 1, 1)
    ideal = times[0] + step * np.arange(len(times))
    even = bool(np.abs(np.array(times) - ideal).max() <= max(0.25 * step, 1.0))
    return replace(
        facts, first_pts=times[0], ticks_per_frame=step, times=() if even else tuple(times)
    )


@dataclass
class _Scan:
    times: list[int | None]
    shown: tuple[int, int, int]  # width, height, degrees
    tick_s: float
    stated_frame_s: float
    damaged: bool = False
    overshot: bool = False  # the seek landed after the first wanted time


def _scan(media: Blob, start_s: float | None, end_s: float | None, seek: bool) -> _Scan:
    with open_video(media) as (container, stream):
        tick_s = float(stream.time_base)
        rate = stream.average_rate or stream.guessed_rate
        scan = _Scan([], (0, 0, 0), tick_s, 1 / float(rate) if rate else 0.0)
        first = start_of(stream) + math.ceil(start_s / tick_s) if start_s else -math.inf
        end = math.inf if end_s is None else start_of(stream) + end_s / tick_s
        seek = seek and can_seek(container)
        if seek:
            container.seek(first, stream=stream, backward=True)
        try:
            _add_frames(scan, decoded_frames(container, stream, after_seek=seek), first, end, seek)
        except DECODER_ERRORS:
            if not scan.times:
                raise
            scan.damaged = True
        return scan


def _add_frames(
    scan: _Scan, frames: Iterator[Any], first: float, end: float, after_seek: bool
) -> None:
    """Note the frames from time `first` to before `end`, up to the first damage."""
    earliest: int | None = None
    for frame in frames:
        if frame is None or frame.is_corrupt:
            if scan.times:
                scan.damaged = True
                return
            continue  # the decoder may still recover before the first good frame
        time = frame.pts
        if earliest is None and time is not None:
            earliest = time
            scan.overshot = after_seek and time > first
        if time is not None and time < first:
            continue
        if time is not None and time >= end:
            return
        size = (frame.width, frame.height, frame.rotation)
        if not scan.times:
            scan.shown = size
        elif size != scan.shown:  # the picture size changes within the stream
            scan.damaged = True
            return
        scan.times.append(time)
