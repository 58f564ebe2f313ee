"""Is a downloaded file what its name says, and complete? Only then does a picture have its loop."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..errors import LoopAnimateError

_Check = Callable[[BinaryIO, int], bool]


def local_suffix(filename: str) -> str:
    """The suffix that a downloaded file gets: one of the formats that are checked, in lower case.

    Raises:
        LoopAnimateError: the server chose another one, which a computer might run.
    """
    suffix = Path(filename).suffix.lower()
    if suffix not in CHECKS:
        raise LoopAnimateError(
            f"the server saved {filename}, which is not downloaded: loops and pictures end in"
            f" {', '.join(CHECKS)}"
        )
    return suffix


def require_format(path: Path, suffix: str, name: str) -> None:
    """Check the beginning and the end of a file.

    Raises:
        LoopAnimateError: it is empty, of another kind than `suffix`, or cut off; the message calls it `name`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            complete = CHECKS[suffix](file, size)
        except (struct.error, OSError):
            complete = False
    if not complete:
        kind = "empty" if size == 0 else f"not a complete {suffix[1:]} file"
        raise LoopAnimateError(f"the server sent {name}, which is {kind} ({size:,} bytes)")


def _png(file: BinaryIO, size: int) -> bool:
    return file.read(8) == b"\x89PNG\r\n\x1a\n" and _end(file, size, 8)[:4] == b"IEND"


def _gif(file: BinaryIO, size: int) -> bool:
    return file.read(6) in (b"GIF87a", b"GIF89a") and _end(file, size, 1) == b";"


def _jpeg(file: BinaryIO, size: int) -> bool:
    return file.read(3) == b"\xff\xd8\xff" and b"\xff\xd9" in _end(file, size, 64)


def _riff(kind: bytes) -> _Check:
    def check(file: BinaryIO, size: int) -> bool:
        riff, length, found = struct.unpack("<4sI4s", file.read(12))
        return riff == b"RIFF" and found == kind and length + 8 <= size

    return check


def _boxes(*required: bytes) -> _Check:
    """The boxes of MP4, MOV and AVIF: one after the other to the end of the file."""

    def check(file: BinaryIO, size: int) -> bool:
        position, found = 0, set()
        while position < size and len(found) < 1000:
            file.seek(position)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1:
                length = struct.unpack(">Q", file.read(8))[0]
            if position == 0 and kind != b"ftyp":
                return False
            found.add(kind)
            position += length or size - position
            if 0 < length < 8:
                return False
        return position == size and set(required) <= found

    return check


def _matroska(file: BinaryIO, size: int) -> bool:
    """An EBML header, and a segment that ends with the file (or does not say where it ends)."""
    file.seek(0)
    start = file.read(64)
    if not start.startswith(b"\x1aE\xdf\xa3"):
        return False
    header, used = _number(start[4:])
    position = 4 + used + header
    file.seek(position)
    segment = file.read(12)
    if not segment.startswith(b"\x18S\x80g"):
        return False
    length, used = _number(segment[4:])
    unknown = length == (1 << 7 * used) - 1
    return unknown or position + 4 + used + length <= size


def _number(data: bytes) -> tuple[int, int]:
    """A number of EBML, and how many bytes it has."""
    length = 9 - data[0].bit_length() if data and data[0] else 9
    if length > 8 or len(data) < length:
        raise struct.error("no number")
    value = int.from_bytes(data[:length], "big")
    return value & ((1 << 7 * length) - 1), length


def _end(file: BinaryIO, size: int, count: int) -> bytes:
    file.seek(max(0, size - count))
    return file.read(count)


CHECKS: dict[str, _Check] = {
    ".mp4": _boxes(b"ftyp", b"moov", b"mdat"),
    ".mov": _boxes(b"ftyp", b"moov", b"mdat"),
    ".webm": _matroska,
    ".mkv": _matroska,
    ".webp": _riff(b"WEBP"),
    ".avif": _boxes(b"ftyp", b"mdat"),
    ".png": _png,
    ".apng": _png,
    ".gif": _gif,
    ".jpg": _jpeg,
    ".jpeg": _jpeg,
}
