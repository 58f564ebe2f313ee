"""What is in a clip's file, found out in a child process: a file that kills the decoder, or keeps it
busy for ever, costs a clip and not the run.

Run as a program it reads questions, a JSON object a line, and answers each with a line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .bad_clip import BadClip
from .readers.rows import Blob, Row, pictures_in
from .video import VideoFacts, examine_video

UNDECODABLE = "cannot be decoded"
CRASHES = "crashes the decoder"
TOO_SLOW = "decoding hangs"
ODD_PICTURES = "pictures of different sizes or damaged"
BAD_MASKS = "masks cannot be read"
FEW_MASKS = "fewer masks than frames"
TIME_LIMIT_S = 600.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Finding:
    """What a look into a clip showed.

    Attributes:
        content: 32 hexadecimal digits that name the pictures and masks of the clip.
        origin: 16 that name its file: clips cut from one video share them.
        reason: why it cannot be used, or empty.
    """

    facts: VideoFacts
    content: str = "0" * 32
    origin: str = "0" * 16
    reason: str = ""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Finding:
        values = json.loads(text)
        facts = values["facts"]
        return Finding(
            **{**values, "facts": VideoFacts(**{**facts, "times": tuple(facts["times"])})}
        )


NOTHING = VideoFacts(0)


def examine(row: Row) -> Finding:
    """Decode a clip and hash its file, in this process."""
    try:
        origin = _content_of(row.media)
        if row.media.path.is_dir():
            facts = _examine_pictures(row.media.path)
        else:
            facts = examine_video(row.media, row.start_s, row.end_s)
    except _Refused as refused:
        return Finding(NOTHING, reason=str(refused))
    except (BadClip, OSError):
        return Finding(NOTHING, reason=UNDECODABLE)
    parts = [origin, repr(row.start_s), repr(row.end_s)]
    if row.masks is not None:
        try:
            masks = row.masks
            parts.append(_content_of(masks))
            folder = masks.path.is_dir()
            count = len(pictures_in(masks.path)) if folder else examine_video(masks).frames
        except (BadClip, OSError):
            return Finding(facts, reason=BAD_MASKS)
        if count < facts.frames:
            return Finding(facts, reason=FEW_MASKS)
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=16)
    return Finding(facts, digest.hexdigest(), origin[:16])


class _Refused(Exception):
    pass


def _examine_pictures(folder: Path) -> VideoFacts:
    from PIL import Image

    sizes = set()
    paths = pictures_in(folder)
    try:
        for path in paths:
            with Image.open(path) as picture:
                sizes.add(picture.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _Refused(ODD_PICTURES) from error
    if len(sizes) > 1:
        raise _Refused(ODD_PICTURES)
    width, height = sizes.pop() if sizes else (0, 0)
    return VideoFacts(len(paths), width, height, ticks_per_frame=0.0)


def _content_of(blob: Blob) -> str:
    """A hash of a file, a part of one, or the pictures of a folder."""
    if not blob.path.is_dir():
        stat = blob.path.stat()
        return _file_hash(blob, stat.st_size, stat.st_mtime_ns)
    digest = hashlib.blake2b(digest_size=16)
    for path in pictures_in(blob.path):
        digest.update(_file_hash(Blob(path), 0, 0).encode())
    return digest.hexdigest()


@lru_cache(maxsize=256)  # a video of Panda-70M is listed once per clip
def _file_hash(blob: Blob, size: int, changed_ns: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with blob.path.open("rb") as file:
        file.seek(blob.offset)
        left = blob.size if blob.size >= 0 else sys.maxsize
        while left and (data := file.read(min(_CHUNK, left))):
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


class Examiners:
    """Child processes that examine, started when first needed; `examine` may be called from threads."""

    def __init__(self, count: int, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._idle: queue.Queue[subprocess.Popen[str] | None] = queue.Queue()
        self._children: set[subprocess.Popen[str]] = set()
        for _ in range(count):
            self._idle.put(None)

    def __enter__(self) -> Examiners:
        return self

    def __exit__(self, *_: object) -> None:
        # Also those at work: their threads then see them gone.
        for child in list(self._children):
            child.kill()
            child.wait()

    def examine(self, row: Row) -> Finding:
        """`examine` in a child. One that dies or takes too long is the clip's fault."""
        child = self._idle.get()
        try:
            if child is None:
                child = _start()
                self._children.add(child)
            answer, timed_out = self._ask(child, row)
            if not answer:
                self._children.discard(child)
                _end(child)
                child = None
                return Finding(NOTHING, reason=TOO_SLOW if timed_out else CRASHES)
            return Finding.from_json(answer)
        finally:
            self._idle.put(child)

    def _ask(self, child: subprocess.Popen[str], row: Row) -> tuple[str, bool]:
        """The answer (empty: the child is gone), and whether its time was up."""
        assert child.stdin is not None and child.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(self._time_limit_s, give_up)
        timer.start()
        try:
            child.stdin.write(json.dumps(_question(row)) + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        except OSError:  # the pipe of a child that has just died
            answer = ""
        finally:
            timer.cancel()
        return answer if answer.endswith("\n") else "", late.is_set()


def _question(row: Row) -> dict[str, Any]:
    def blob(value: Blob | None) -> list[Any] | None:
        return None if value is None else [os.fspath(value.path), value.offset, value.size]

    return {
        "media": blob(row.media),
        "masks": blob(row.masks),
        "start_s": row.start_s,
        "end_s": row.end_s,
    }


def _row(question: dict[str, Any]) -> Row:
    path, offset, size = question["media"]
    masks = question["masks"]
    return Row(
        "", Blob(Path(path), offset, size), "",
        None if masks is None else Blob(Path(masks[0]), *masks[1:]),
        question["start_s"], question["end_s"],
    )  # fmt: skip


def _start() -> subprocess.Popen[str]:
    # The child finds the package where this process has found it, and leaves Ctrl-C to the parent.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, encoding="ascii", env=environment, start_new_session=os.name == "posix",
    )  # fmt: skip


def _end(child: subprocess.Popen[str]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    child.kill()
    child.wait()


def _answer_questions() -> Iterator[str]:
    for line in sys.stdin:
        yield examine(_row(json.loads(line))).to_json()


if __name__ == "__main__":
    for text in _answer_questions():
        print(text, flush=True)
