"""Reading training videos with PyAV: what is really in a file, and chosen frames of it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import ArrayLike

from .bad_clip import BadClip
from .readers.rows import Blob

SEEK_FROM_FRAME = 48  # nearer to the start, decoding from the start is as quick
# PyAV raises bare ones of these too, for files that are none.
_DECODER_ERRORS = (FFmpegError, OSError, ValueError, IndexError, KeyError, EOFError)


@dataclass(frozen=True)
class VideoFacts:
    """What decoding a clip showed; headers are not trusted.

    Attributes:
        frames: frames that decode, up to the first damage.
        width_px, height_px: as shown, after the rotation that the file asks for.
        rotation: quarter turns counter-clockwise that the file asks for.
        tick_s: seconds per unit of presentation time.
        first_pts, ticks_per_frame: presentation time of the first frame, and from frame to frame on
            the average.
        times: presentation time of every frame; empty when they are evenly spaced.
        damaged: whether decoding broke off before the end.
        counted: whether frames have no usable times and are known by their place alone.
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
        """Frames per second on the average; 0 where time means nothing (folders of pictures)."""
        return frames_per_second(self.ticks_per_frame, self.tick_s)


def frames_per_second(ticks_per_frame: float, tick_s: float) -> float:
    """Average rate of a clip, 0 without times."""
    return 1 / (ticks_per_frame * tick_s) if ticks_per_frame * tick_s > 0 else 0.0


def resampled_counts(frames: ArrayLike, clip_fps: ArrayLike, fps: float | None) -> np.ndarray:
    """Frames that clips of `frames` have at `fps`, of the same shape, int64.

    Without `fps`, and in clips without times (`clip_fps` 0), their own.
    """
    frames, rates = np.asarray(frames, np.int64), np.asarray(clip_fps, np.float64)
    if fps is None:
        return frames
    share = np.divide(fps, rates, out=np.ones_like(rates), where=rates > 0)
    resampled = np.floor((frames - 1) * share + 1e-6).astype(np.int64) + 1
    return np.where((frames > 0) & (rates > 0), resampled, frames)


def source_frames(facts: VideoFacts, indices: Sequence[int], fps: float | None) -> np.ndarray:
    """Numbers of the decoded frames nearest in time to frames `indices` at `fps`, [n] int64.

    Without `fps` the clip's own average rate is taken, so an even clip's frames are themselves.
    """
    wanted = np.asarray(indices, np.float64)
    if fps is not None and facts.fps > 0:
        wanted = wanted * (facts.fps / fps)
    if facts.times:
        positions = (np.asarray(facts.times) - facts.first_pts) / (facts.ticks_per_frame or 1.0)
        right = np.searchsorted(positions, wanted).clip(1, max(len(positions) - 1, 1))
        if len(positions) == 1:
            return np.zeros(len(wanted), np.int64)
        left_nearer = wanted - positions[right - 1] <= positions[right] - wanted
        return np.where(left_nearer, right - 1, right)
    return np.floor(wanted + 0.5 - 1e-6).astype(np.int64).clip(0, max(facts.frames - 1, 0))


def examine_video(
    media: Blob, start_s: float | None = None, end_s: float | None = None
) -> VideoFacts:
    """Decode a whole file, or the part from `start_s` to before `end_s`, once.

    A file damaged further on keeps its good beginning. Frames without usable times (H.264 in .avi) are
    counted instead, at the rate that the file states.

    Raises:
        BadClip: it cannot be decoded, holds no picture there, or has no times to cut a part by.
    """
    try:
        scan = _scan(media, start_s, end_s, seek=bool(start_s))
        if start_s and (not scan.times or scan.overshot):
            scan = _scan(media, start_s, end_s, seek=False)
    except _DECODER_ERRORS as error:
        raise BadClip(f"{media.path} cannot be decoded ({error})") from error
    if not scan.times:
        raise BadClip(f"{media.path} holds no picture")
    width, height, degrees = scan.shown
    rotation = round(degrees / 90) % 4
    if rotation % 2:
        width, height = height, width
    found = VideoFacts(len(scan.times), width, height, rotation, scan.tick_s, damaged=scan.damaged)
    times = [time for time in scan.times if time is not None]
    if len(times) < len(scan.times) or any(a >= b for a, b in pairwise(times)):
        if start_s or end_s is not None:
            raise BadClip(f"{media.path} has no usable times to cut a part by")
        return replace(found, tick_s=scan.stated_frame_s, counted=True)
    step = (times[-1] - times[0]) / max(len(times) - 1, 1)
    ideal = times[0] + step * np.arange(len(times))
    even = bool(np.abs(np.array(times) - ideal).max() <= max(0.25 * step, 1.0))
    return replace(
        found, first_pts=times[0], ticks_per_frame=step, times=() if even else tuple(times)
    )


@dataclass
class _Scan:
    times: list[int | None]
    shown: tuple[int, int, int]  # width, height, degrees
    tick_s: float
    stated_frame_s: float
    damaged: bool = False
    overshot: bool = False  # a seek has landed behind the first time wanted


def _scan(media: Blob, start_s: float | None, end_s: float | None, seek: bool) -> _Scan:
    with _opened(media) as (container, stream):
        tick_s = float(stream.time_base)
        rate = stream.average_rate or stream.guessed_rate
        scan = _Scan([], (0, 0, 0), tick_s, 1 / float(rate) if rate else 0.0)
        first = _origin(stream) + math.ceil(start_s / tick_s) if start_s else -math.inf
        end = math.inf if end_s is None else _origin(stream) + end_s / tick_s
        seek = seek and _has_frame_index(container)
        if seek:
            container.seek(first, stream=stream, backward=True)
        earliest = None
        try:
            for frame in _frames(container, stream, after_seek=seek):
                if frame is None or frame.is_corrupt:
                    if scan.times:
                        scan.damaged = True
                        break
                    continue  # before the first frame, the decoder recovers
                time = frame.pts
                earliest = earliest if earliest is not None else time
                if time is not None and time < first:
                    continue
                if time is not None and time >= end:
                    break
                size = (frame.width, frame.height, frame.rotation)
                if not scan.times:
                    scan.shown = size
                elif size != scan.shown:  # a stream that changes its picture's size half-way
                    scan.damaged = True
                    break
                scan.times.append(time)
        except _DECODER_ERRORS:
            if not scan.times:
                raise
            scan.damaged = True
        scan.overshot = seek and earliest is not None and earliest > first
        return scan


def read_video(
    media: Blob, indices: Sequence[int], facts: VideoFacts, pixel_format: str = "rgb24"
) -> np.ndarray:
    """Decoded frames number `indices` (ascending, repeats allowed), found by their times.

    Returns:
        [n, H, W, 3] uint8, or [n, H, W] with the pixel format `gray`; turned upright.

    Raises:
        BadClip: the file cannot be decoded now, or lacks one of the frames.
    """
    if facts.counted:
        return read_numbered(media, indices, pixel_format)
    if indices[0] < 0 or indices[-1] >= facts.frames:
        raise BadClip(f"{media.path} lacks frame {indices[-1]}")
    wanted = sorted(set(indices))
    try:
        found = _find(media, wanted, facts, pixel_format, seek=True)
        if len(found) < len(wanted):  # a seek may fail all the same
            found = _find(media, wanted, facts, pixel_format, seek=False)
    except _DECODER_ERRORS as error:
        raise BadClip(f"{media.path} cannot be decoded ({error})") from error
    if missing := [index for index in wanted if index not in found]:
        raise BadClip(f"{media.path} lacks frame {missing[0]}")
    return np.stack([found[i] for i in indices])


def _find(
    media: Blob, wanted: Sequence[int], facts: VideoFacts, pixel_format: str, seek: bool
) -> dict[int, np.ndarray]:
    """The frames of `wanted` that are there."""
    pts = [facts.times[i] if facts.times else _pts(facts, i) for i in wanted]
    tolerance = 0.5 if facts.times else max(0.5 * facts.ticks_per_frame, 0.5)
    found: dict[int, np.ndarray] = {}
    with _opened(media) as (container, stream):
        far = wanted[0] >= SEEK_FROM_FRAME or facts.first_pts > _origin(stream)
        seek = seek and far and _has_frame_index(container)
        if seek:
            container.seek(round(pts[0]), stream=stream, backward=True)
        place = 0
        for frame in _frames(container, stream, after_seek=seek):
            # Corrupt: the seek has landed on a frame that only says that it needs no others.
            if frame is None or frame.pts is None or frame.is_corrupt:
                continue
            while place < len(wanted) and frame.pts > pts[place] + tolerance:
                place += 1  # it is missing
            if place < len(wanted) and abs(frame.pts - pts[place]) <= tolerance:
                found[wanted[place]] = _upright(frame, pixel_format)
                place += 1
            if place == len(wanted):
                break
    return found


def _upright(frame: Any, pixel_format: str) -> np.ndarray:
    return np.rot90(frame.to_ndarray(format=pixel_format), round(frame.rotation / 90))


def read_numbered(media: Blob, indices: Sequence[int], pixel_format: str) -> np.ndarray:
    """As `read_video`, for a video of which nothing is known: frames are counted from its start.

    Raises:
        BadClip: the file cannot be decoded, or lacks one of the frames.
    """
    wanted, found = set(indices), {}
    try:
        with _opened(media) as (container, stream):
            good = (frame for frame in _frames(container, stream) if frame is not None)
            for number, frame in enumerate(good):
                if number in wanted:
                    found[number] = _upright(frame, pixel_format)
                if number >= indices[-1]:
                    break
    except _DECODER_ERRORS as error:
        raise BadClip(f"{media.path} cannot be decoded ({error})") from error
    if missing := sorted(wanted - set(found)):
        raise BadClip(f"{media.path} lacks frame {missing[0]}")
    return np.stack([found[i] for i in indices])


class ByteRange(io.RawIOBase):
    """A member of a tar as a file of its own."""

    def __init__(self, blob: Blob) -> None:
        super().__init__()
        self._file = blob.path.open("rb")
        self._start, self._size, self._place = blob.offset, blob.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self._size - self._place), 0)
        self._file.seek(self._start + self._place)
        read = self._file.readinto(view[:count])
        self._place += read
        return read

    def read(self, size: int = -1) -> bytes:
        # RawIOBase would ask for one system call's worth; FFmpeg takes a short read for the end.
        room = max(self._size - self._place, 0)
        self._file.seek(self._start + self._place)
        data = self._file.read(room if size is None or size < 0 else min(size, room))
        self._place += len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def _opened(media: Blob) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream."""
    if media.size < 0:
        source: Any = str(media.path)
        with av.open(source) as container:
            yield container, _stream(container)
        return
    with ByteRange(media) as file, av.open(file) as container:
        yield container, _stream(container)


def _stream(container: Any) -> Any:
    stream = container.streams.video[0]
    stream.thread_type = "NONE"  # clips are read in parallel; one thread per file
    return stream


def _frames(container: Any, stream: Any, after_seek: bool = False) -> Iterator[Any]:
    """Frames in the order they are shown, and None for a packet that does not decode.

    After a seek the frames before the first key frame lack what they were made from: they are left out.
    """
    whole = not after_seek
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except _DECODER_ERRORS:
            yield None
            continue
        for frame in frames:
            whole = whole or frame.key_frame
            if whole:
                yield frame


def _has_frame_index(container: Any) -> bool:
    """Whether a seek is to be trusted: elsewhere (.mpg, .ts) times are guessed anew after one."""
    return any(name in container.format.name.split(",") for name in ("mp4", "matroska", "avi"))


def _origin(stream: Any) -> int:
    """The time in ticks from which the seconds of a part count."""
    return stream.start_time or 0


def _pts(facts: VideoFacts, index: int) -> float:
    return facts.first_pts + index * facts.ticks_per_frame
