"""Opening a video with PyAV, also inside a tar, and its frames in display order."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
from av.error import FFmpegError

from ...remote import RemotePath
from ..readers.rows import Blob

# PyAV raises the plain Python ones too, for files that are not videos.
DECODER_ERRORS = (FFmpegError, OSError, ValueError, IndexError, KeyError, EOFError)

# What is in a file cannot open another source: a text in SDP names network ports, a playlist other files.
_CONTAINED = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,"
    "webp,h264,hevc,ivf,y4m,yuv4mpegpipe,rawvideo,nut",
}


@contextmanager
def open_video(media: Blob) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream."""
    if not media.path.is_file():  # a device or a pipe never ends
        raise OSError(f"{media.path} is not a file")
    if media.size < 0 and not isinstance(media.path, RemotePath):
        with av.open(f"file:{media.path}", options=_CONTAINED) as container:
            yield container, _stream(container)
        return
    with ByteRange(media) as file, av.open(file, options=_CONTAINED) as container:
        yield container, _stream(container)


def decoded_frames(container: Any, stream: Any, after_seek: bool = False) -> Iterator[Any]:
    """Frames in display order, and None for a packet that does not decode.

    After a seek, frames before the first key frame are skipped: the frames they refer to are missing.
    """
    complete = not after_seek
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except DECODER_ERRORS:
            yield None
            continue
        for frame in frames:
            complete = complete or frame.key_frame
            if complete:
                yield frame


def can_seek(container: Any) -> bool:
    """Whether frame times stay the same after a seek; in .mpg and .ts FFmpeg guesses them again."""
    return any(name in container.format.name.split(",") for name in ("mp4", "matroska", "avi"))


def start_of(stream: Any) -> int:
    """The stream's start time in ticks; the seconds of a part count from here."""
    return stream.start_time or 0


def _stream(container: Any) -> Any:
    stream = container.streams.video[0]
    stream.thread_type = "NONE"  # clips are read in parallel; one thread per file
    return stream


class ByteRange(io.RawIOBase):
    """A remote file, or part of a file, such as a member of a tar, as a file of its own."""

    def __init__(self, blob: Blob) -> None:
        super().__init__()
        self._file = blob.path.open("rb")
        size = blob.size if blob.size >= 0 else blob.path.stat().st_size - blob.offset
        self._start, self._size, self._position = blob.offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self._size - self._position), 0)
        self._file.seek(self._start + self._position)
        read = self._file.readinto(view[:count])
        self._position += read
        return read

    def read(self, size: int = -1) -> bytes:
        # RawIOBase may return less than asked for, and FFmpeg takes a short read for the end of the file.
        room = max(self._size - self._position, 0)
        self._file.seek(self._start + self._position)
        data = self._file.read(room if size is None or size < 0 else min(size, room))
        self._position += len(data)
        return data

    def close(self) -> None:
        self._file.close()
        super().close()
