"""What is in a clip's file: decode all of it and hash it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.opening import MAX_FILE_BYTES, open_picture, reading

from ...remote import picture_source
from ..readers.rows import Blob, Row, pictures_in
from ..video.bad_clip import BadClip
from ..video.facts import NOTHING_DECODED, VideoFacts
from ..video.scan import scan_video

UNDECODABLE = "cannot be decoded"
ODD_PICTURES = "pictures of different sizes or damaged"
BAD_MASKS = "masks cannot be read"
FEW_MASKS = "fewer masks than frames"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ProbeResult:
    """What probing a clip showed.

    Attributes:
        content: 32 hexadecimal digits, a hash of the clip's frames and masks.
        origin: 16 hexadecimal digits, a hash of its file: clips cut from one video share it.
        reason: why the clip cannot be used; empty if it can.
    """

    facts: VideoFacts
    content: str = "0" * 32
    origin: str = "0" * 16
    reason: str = ""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> ProbeResult:
        values = json.loads(text)
        facts = values["facts"]
        return ProbeResult(
            **{**values, "facts": VideoFacts(**{**facts, "times": tuple(facts["times"])})}
        )


def unusable(reason: str = "") -> ProbeResult:
    """The result for a clip of which nothing could be decoded."""
    return ProbeResult(NOTHING_DECODED, reason=reason)


def probe(row: Row) -> ProbeResult:
    """Decode a clip and hash its file, in this process. See `ProbePool` for files that may crash it."""
    if not (row.media.path.is_file() or row.media.path.is_dir()):  # a device or a pipe never ends
        return unusable(UNDECODABLE)
    try:
        origin = _content_hash(row.media)
        if row.media.path.is_dir():
            facts = _scan_pictures(row.media.path)
        else:
            facts = scan_video(row.media, row.start_s, row.end_s)
    except _OddPictures:
        return unusable(ODD_PICTURES)
    except (BadClip, OSError):
        return unusable(UNDECODABLE)
    parts = [origin, repr(row.start_s), repr(row.end_s)]
    if row.masks is not None:
        try:
            parts.append(_content_hash(row.masks))
            count = _count_pictures(row.masks)
        except (BadClip, OSError):
            return ProbeResult(facts, reason=BAD_MASKS)
        if count < facts.frames:
            return ProbeResult(facts, reason=FEW_MASKS)
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=16)
    return ProbeResult(facts, digest.hexdigest(), origin[:16])


class _OddPictures(Exception):
    """Pictures of a folder are damaged or differ in size."""


def _scan_pictures(folder: Path) -> VideoFacts:
    sizes = set()
    paths = pictures_in(folder)
    try:
        for path in paths:
            source = picture_source(path, MAX_FILE_BYTES)
            with reading(path), open_picture(source) as picture:
                sizes.add(picture.size)
    except LoopAnimateError as error:
        raise _OddPictures from error
    if len(sizes) > 1:
        raise _OddPictures
    width, height = sizes.pop() if sizes else (0, 0)
    return VideoFacts(len(paths), width, height, ticks_per_frame=0.0)


def _count_pictures(masks: Blob) -> int:
    if masks.path.is_dir():
        return len(pictures_in(masks.path))
    return scan_video(masks).frames


def _content_hash(blob: Blob) -> str:
    """A hash of a file, a part of one, or the pictures of a folder."""
    if not blob.path.is_dir():
        stat = blob.path.stat()
        return _file_hash(blob, stat.st_size, stat.st_mtime_ns)
    digest = hashlib.blake2b(digest_size=16)
    for path in pictures_in(blob.path):
        digest.update(_file_hash(Blob(path), 0, 0).encode())
    return digest.hexdigest()


@lru_cache(maxsize=256)  # Panda-70M lists a video once for each of its clips
def _file_hash(blob: Blob, size_bytes: int, changed_ns: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with blob.path.open("rb") as file:
        file.seek(blob.offset)
        left = blob.size if blob.size >= 0 else sys.maxsize
        while left and (data := file.read(min(_CHUNK_BYTES, left))):
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()
