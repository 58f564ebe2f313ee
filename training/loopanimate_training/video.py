"""Reading training videos with PyAV: what is really in a file, and chosen frames of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from .sources import BadClip

SEEK_FROM_FRAME = 48  # nearer to the start, decoding from the start is as quick


@dataclass(frozen=True)
class VideoFacts:
    """What decoding a whole file showed; headers are not trusted.

    Attributes:
        frames: frames that decode.
        even: whether they are evenly spaced in time.
        first_pts, ticks_per_frame: presentation time of the first frame and between frames.
    """

    frames: int
    even: bool
    first_pts: int
    ticks_per_frame: float


def examine_video(path: Path) -> VideoFacts:
    """Decode a whole file once.

    Raises:
        BadClip: it cannot be decoded, or holds no picture.
    """
    times: list[int] = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(_stream(container)):
                if frame.pts is not None:
                    times.append(frame.pts)
    except (FFmpegError, OSError, ValueError, IndexError) as error:
        raise BadClip(f"{path} cannot be decoded ({error})") from error
    if not times:
        raise BadClip(f"{path} holds no picture")
    step = (times[-1] - times[0]) / max(len(times) - 1, 1)
    ideal = times[0] + step * np.arange(len(times))
    even = bool(np.abs(np.array(times) - ideal).max() <= max(0.25 * step, 1.0))
    return VideoFacts(len(times), even, times[0], step)


def read_video(path: Path, indices: Sequence[int], facts: VideoFacts) -> np.ndarray:
    """Frames [n, H, W, 3] uint8 at ascending, distinct `indices`, found by their times.

    Raises:
        BadClip: the file cannot be decoded now, or lacks one of the frames.
    """
    wanted, found = set(indices), {}
    try:
        with av.open(str(path)) as container:
            stream = _stream(container)
            if indices[0] >= SEEK_FROM_FRAME:
                pts = facts.first_pts + round(indices[0] * facts.ticks_per_frame)
                container.seek(pts, stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                number = round((frame.pts - facts.first_pts) / (facts.ticks_per_frame or 1.0))
                if number in wanted:
                    found[number] = frame.to_ndarray(format="rgb24")
                if number >= indices[-1]:
                    break
    except (FFmpegError, OSError, ValueError, IndexError) as error:
        raise BadClip(f"{path} cannot be decoded ({error})") from error
    if missing := sorted(wanted - set(found)):
        raise BadClip(f"{path} lacks frame {missing[0]}")
    return np.stack([found[i] for i in indices])


def _stream(container: Any) -> Any:
    stream = container.streams.video[0]
    stream.thread_type = "NONE"  # clips are read in parallel; one thread per file
    return stream
