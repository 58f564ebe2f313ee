"""The index on disk: one file, mapped into memory, that every process of a machine shares.

Layout (little-endian):

    8 bytes   b"LOOPIDX2"
    8 bytes   length of the header
    header    JSON: `state` (what was indexed), `reader`, `rows`, `reasons`, `blocks` {name: [dtype, offset, bytes]}
    blocks    offsets count from the first multiple of 64 behind the header, and are multiples of 64 too:
              one array per column of `COLUMNS`, then `times` (int64, of uneven videos, one after the
              other) and `letters` (id, path, caption and mask path of each row, one after the other)

Opening reads the header only; a question about a million rows touches the columns it needs.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

from .probe import Finding
from .readers.rows import Blob, Row
from .video import VideoFacts

MAGIC = b"LOOPIDX2"
REPEATED = "listed twice"
_ALIGN = 64
_TEXTS = 4  # id, path, caption, masks

COLUMNS = np.dtype(
    [
        ("reason", "u1"),  # number in the header's reasons; 0: none
        ("damaged", "u1"),
        ("counted", "u1"),
        ("rotation", "u1"),
        ("frames", "<u4"),
        ("width_px", "<u4"),
        ("height_px", "<u4"),
        ("tick_s", "<f8"),
        ("first_pts", "<i8"),
        ("ticks_per_frame", "<f8"),
        ("uneven", "u1"),
        ("times_at", "<u8"),  # uneven: where the first of its `frames` times is
        ("start_s", "<f8"),  # not a number: none
        ("end_s", "<f8"),
        ("offset", "<i8"),
        ("size", "<i8"),
        ("mask_offset", "<i8"),
        ("mask_size", "<i8"),
        ("text_at", "<u8"),
        ("lengths", "<u4", (_TEXTS,)),
        ("caption_hash", "<u8"),
        ("content", "u1", (16,)),
        ("origin", "<u8"),
        ("signature", "u1", (16,)),
        ("bytes", "<i8"),  # of the file when it was looked at; -1: a folder
        ("changed_ns", "<i8"),
    ]
)
_NAMES = COLUMNS.names or ()


class ClipTable:
    """A finished index, read where it lies.

    Raises:
        LoopAnimateError: the file is no index, or was cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                known = file.read(8) == MAGIC
                length = int.from_bytes(file.read(8), "little") if known else 0
                header = json.loads(file.read(length)) if known else {}
                self._start = _aligned(file.tell())
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, MemoryError) as error:
            raise LoopAnimateError(f"cannot read the index {path}: {error}") from error
        if not known:
            raise LoopAnimateError(f"{path} is no index of clips of this version")
        self.state: str = header["state"]
        self.reader: str = header["reader"]
        self.reasons: list[str] = header["reasons"]
        self._rows: int = header["rows"]
        self._blocks: dict[str, list[Any]] = header["blocks"]
        ends = [offset + size for _, offset, size in self._blocks.values()]
        if max(ends, default=0) > len(self._map) - self._start:
            raise LoopAnimateError(f"the index {path} was cut off; delete it to make it anew")

    def __len__(self) -> int:
        return self._rows

    def column(self, name: str) -> np.ndarray:
        """A column of all rows, mapped and not copied."""
        kind, offset, size = self._blocks[name]
        shape = COLUMNS[name].shape if name in _NAMES else ()
        count = size // np.dtype(kind).itemsize
        if not count:
            return np.zeros((0, *shape), kind)
        flat = np.frombuffer(self._map, kind, count, self._start + offset)
        return flat.reshape(-1, *shape)

    def text(self, row: int) -> tuple[str, str, str, str]:
        """A row's id, path, caption and mask path (empty: none)."""
        base = self._start + self._blocks["letters"][1] + int(self.column("text_at")[row])
        parts = []
        for length in self.column("lengths")[row].tolist():
            parts.append(self._map[base : base + length].decode("utf-8", "surrogateescape"))
            base += length
        return parts[0], parts[1], parts[2], parts[3]

    def row(self, row: int) -> Row:
        """A row as its reader listed it."""
        name, path, caption, masks = self.text(row)
        start, end = (float(self.column(c)[row]) for c in ("start_s", "end_s"))
        return Row(
            id=name,
            media=Blob(Path(path), *self._numbers(row, "offset", "size")),
            caption=caption,
            masks=Blob(Path(masks), *self._numbers(row, "mask_offset", "mask_size"))
            if masks
            else None,
            start_s=None if np.isnan(start) else start,
            end_s=None if np.isnan(end) else end,
            reason=self.reasons[self.column("reason")[row]],
        )

    def facts(self, row: int) -> VideoFacts:
        """What decoding a row's clip showed."""
        frames, width, height, rotation, first = self._numbers(
            row, "frames", "width_px", "height_px", "rotation", "first_pts"
        )
        times: tuple[int, ...] = ()
        if self.column("uneven")[row]:
            place = int(self.column("times_at")[row])
            times = tuple(self.column("times")[place : place + frames].tolist())
        return VideoFacts(
            frames, width, height, rotation, float(self.column("tick_s")[row]), first,
            float(self.column("ticks_per_frame")[row]), times,
            *(bool(self.column(name)[row]) for name in ("damaged", "counted")),
        )  # fmt: skip

    def finding(self, row: int) -> Finding:
        """What was found out about a row, for an index made anew."""
        return Finding(
            self.facts(row),
            self.content(row),
            f"{int(self.column('origin')[row]):016x}",
            self.reasons[self.column("reason")[row]].replace(REPEATED, ""),
        )

    def stat(self, row: int) -> tuple[int, int]:
        """Bytes and time of change of a row's file when it was looked at."""
        size, changed = self._numbers(row, "bytes", "changed_ns")
        return size, changed

    def content(self, row: int) -> str:
        """32 digits that name the pictures and masks of a row's clip."""
        return self.column("content")[row].tobytes().hex()

    def _numbers(self, row: int, *names: str) -> list[int]:
        return [int(self.column(name)[row]) for name in names]


class TableWriter:
    """Collects rows on disk, then writes the index in one piece. Use as a context."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reasons = [""]
        self._count = self._times_count = self._length = 0

    def __enter__(self) -> TableWriter:
        with ExitStack() as stack:
            self._rows, self._times, self._letters = (
                stack.enter_context(tempfile.TemporaryFile(dir=self.path.parent)) for _ in range(3)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, row: Row, finding: Finding, signature: bytes, stat: tuple[int, int]) -> None:
        """Append a row; `stat` are its file's bytes and time of change."""
        facts = finding.facts
        texts = [row.id, os.fspath(row.media.path), row.caption, ""]
        masks = row.masks or Blob(Path())
        if row.masks is not None:
            texts[3] = os.fspath(row.masks.path)
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        none = float("nan")
        values = {
            "reason": self._reason(row.reason or finding.reason),
            "damaged": facts.damaged,
            "counted": facts.counted,
            "rotation": facts.rotation,
            "frames": facts.frames,
            "width_px": facts.width_px,
            "height_px": facts.height_px,
            "tick_s": facts.tick_s,
            "first_pts": facts.first_pts,
            "ticks_per_frame": facts.ticks_per_frame,
            "times_at": self._times_count,
            "uneven": bool(facts.times),
            "start_s": none if row.start_s is None else row.start_s,
            "end_s": none if row.end_s is None else row.end_s,
            "offset": row.media.offset,
            "size": row.media.size,
            "mask_offset": masks.offset,
            "mask_size": masks.size,
            "text_at": self._length,
            "lengths": [len(text) for text in encoded],
            "caption_hash": int.from_bytes(
                hashlib.blake2b(encoded[2], digest_size=8).digest(), "little"
            ),
            "content": tuple(bytes.fromhex(finding.content)),
            "origin": int(finding.origin, 16),
            "signature": tuple(signature),
            "bytes": stat[0],
            "changed_ns": stat[1],
        }
        record = tuple(values[name] for name in _NAMES)
        self._rows.write(np.array(record, COLUMNS).tobytes())
        self._times.write(np.asarray(facts.times, "<i8").tobytes())
        self._letters.write(b"".join(encoded))
        self._count += 1
        self._times_count += len(facts.times)
        self._length += sum(map(len, encoded))

    def finish(self, state: str, reader: str) -> None:
        """Write the index; a row with the content and caption of one before is marked as repeated."""
        for file in (self._rows, self._times, self._letters):
            file.flush()
        rows = self._mark_repeated(self._reason(REPEATED))
        blocks, offset = {}, 0
        for name, kind, size in self._plan():
            blocks[name] = [kind, offset, size]
            offset = _aligned(offset + size)
        header = {
            "state": state, "reader": reader, "rows": self._count, "reasons": self.reasons,
            "blocks": blocks,
        }  # fmt: skip
        encoded = json.dumps(header).encode("ascii")
        with atomic_write(self.path) as partial, partial.open("wb") as file:
            file.write(MAGIC + len(encoded).to_bytes(8, "little") + encoded)
            start = _aligned(file.tell())
            for name, (_, offset, _) in blocks.items():
                file.seek(start + offset)
                if name in _NAMES:
                    file.write(np.ascontiguousarray(rows[name]).tobytes())
                else:
                    source = self._times if name == "times" else self._letters
                    source.seek(0)
                    shutil.copyfileobj(source, file, 1 << 20)
            file.truncate(start + max(o + size for _, o, size in blocks.values()))

    def _plan(self) -> list[tuple[str, str, int]]:
        """Name, kind of number and bytes of every block."""
        plan = [(n, COLUMNS[n].base.str, self._count * COLUMNS[n].itemsize) for n in _NAMES]
        return [*plan, ("times", "<i8", 8 * self._times_count), ("letters", "|u1", self._length)]

    def _reason(self, text: str) -> int:
        if text not in self.reasons:
            self.reasons.append(text)
        return self.reasons.index(text)

    def _mark_repeated(self, reason: int) -> np.ndarray:
        """The records of all rows, with the repeated ones marked."""
        if not self._count:
            return np.zeros(0, COLUMNS)
        rows = np.memmap(self._rows, COLUMNS, "r+")
        content = np.ascontiguousarray(rows["content"]).view("<u8").reshape(-1, 2)
        keys = (np.arange(len(rows)), rows["caption_hash"], content[:, 1], content[:, 0])
        order = np.lexsort(keys)
        equal = np.ones(len(rows) - 1, bool)
        for key in keys[1:]:
            equal &= key[order[1:]] == key[order[:-1]]
        # Of equal ones the first in the data set's order stays. Rows left out have no content.
        repeated = order[1:][equal]
        rows["reason"][repeated[rows["reason"][repeated] == 0]] = reason
        return rows


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN
