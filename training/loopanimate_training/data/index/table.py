"""The index on disk: one file, mapped into memory and shared by all processes of a machine.

Layout (little-endian):

    8 bytes   b"LOOPIDX2"
    8 bytes   length of the header
    header    JSON: `state` (what was indexed), `reader`, `rows`, `reasons`, `blocks` {name: [dtype, offset, bytes]}
    blocks    offsets count from the first multiple of 64 after the header, and are multiples of 64 too:
              one array per column of `COLUMNS`, then `times` (int64, frame times of unevenly spaced videos, one
              after the other) and `letters` (id, path, caption and mask path of each row, one after the other)

Opening reads the header only, and a query over a million rows reads only the columns it needs.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from loopanimate_core.errors import LoopAnimateError

from ...remote import data_path
from ..readers.rows import Blob, Row
from ..video.facts import VideoFacts
from .probe import ProbeResult

MAGIC = b"LOOPIDX2"
REPEATED = "listed twice"
TEXTS = 4  # id, path, caption, masks
_ALIGN = 64
_AT_ONCE = 1 << 16  # rows

COLUMNS = np.dtype(
    [
        ("reason", "u1"),  # index into the header's reasons; 0 is ""
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
        ("start_s", "<f8"),  # NaN: none
        ("end_s", "<f8"),
        ("offset", "<i8"),
        ("size", "<i8"),
        ("mask_offset", "<i8"),
        ("mask_size", "<i8"),
        ("text_at", "<u8"),
        ("lengths", "<u4", (TEXTS,)),
        ("caption_hash", "<u8"),
        ("content", "u1", (16,)),
        ("origin", "<u8"),
        ("signature", "u1", (16,)),
        ("bytes", "<i8"),  # of the file when it was probed; -1: a folder
        ("changed_ns", "<i8"),
    ]
)
NAMES = COLUMNS.names or ()


def aligned(offset: int) -> int:
    """The next multiple of 64."""
    return -(-offset // _ALIGN) * _ALIGN


class ClipTable:
    """A finished index, memory-mapped.

    Raises:
        LoopAnimateError: the file is not an index of this version, or is incomplete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                known = file.read(8) == MAGIC
                length = int.from_bytes(file.read(8), "little") if known else 0
                header = json.loads(file.read(length)) if known else {}
                self._start = aligned(file.tell())
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, MemoryError) as error:
            raise LoopAnimateError(f"cannot read the index {path}: {error}") from error
        if not known:
            raise LoopAnimateError(f"{path} is not a clip index of this version")
        self.state: str = header["state"]
        self.reader: str = header["reader"]
        self.reasons: list[str] = header["reasons"]
        self._rows: int = header["rows"]
        self._blocks: dict[str, list[Any]] = header["blocks"]
        ends = [offset + size for _, offset, size in self._blocks.values()]
        if max(ends, default=0) > len(self._map) - self._start:
            raise LoopAnimateError(f"the index {path} is incomplete; delete it to rebuild it")

    def __len__(self) -> int:
        return self._rows

    def column(self, name: str) -> np.ndarray:
        """A column of all rows, mapped and not copied."""
        kind, offset, size = self._blocks[name]
        shape = COLUMNS[name].shape if name in NAMES else ()
        count = size // np.dtype(kind).itemsize
        if not count:
            return np.zeros((0, *shape), kind)
        flat = np.frombuffer(self._map, kind, count, self._start + offset)
        return flat.reshape(-1, *shape)

    def text(self, row: int) -> tuple[str, str, str, str]:
        """A row's id, path, caption and mask path (empty: no masks)."""
        at = self._start + self._blocks["letters"][1] + int(self.column("text_at")[row])
        parts = []
        for length in self.column("lengths")[row].tolist():
            parts.append(self._map[at : at + length].decode("utf-8", "surrogateescape"))
            at += length
        return parts[0], parts[1], parts[2], parts[3]

    def contents_and_captions(self, rows: np.ndarray) -> Iterator[tuple[str, bytes]]:
        """What `content` returns, and the caption as UTF-8, of many rows: ten times as fast as one by one."""
        letters, starts = self._start + self._blocks["letters"][1], self.column("text_at")
        for at in range(0, len(rows), _AT_ONCE):
            some = rows[at : at + _AT_ONCE]
            lengths = self.column("lengths")[some].astype(np.int64)
            first = letters + starts[some].astype(np.int64) + lengths[:, :2].sum(1)
            last = (first + lengths[:, 2]).tolist()
            digits = self.column("content")[some].tobytes().hex()
            for place, (begin, end) in enumerate(zip(first.tolist(), last, strict=True)):
                yield digits[32 * place : 32 * place + 32], self._map[begin:end]

    def row(self, row: int) -> Row:
        """A row as its reader listed it, with the reason why it cannot be used."""
        name, path, caption, masks = self.text(row)
        mask_part = self._numbers(row, "mask_offset", "mask_size")
        start_s, end_s = (float(self.column(c)[row]) for c in ("start_s", "end_s"))
        return Row(
            id=name,
            media=Blob(data_path(path), *self._numbers(row, "offset", "size")),
            caption=caption,
            masks=Blob(data_path(masks), *mask_part) if masks else None,
            start_s=None if np.isnan(start_s) else start_s,
            end_s=None if np.isnan(end_s) else end_s,
            reason=self.reasons[self.column("reason")[row]],
        )

    def facts(self, row: int) -> VideoFacts:
        """What decoding a row's clip showed."""
        frames, width, height, rotation, first = self._numbers(
            row, "frames", "width_px", "height_px", "rotation", "first_pts"
        )
        times: tuple[int, ...] = ()
        if self.column("uneven")[row]:
            at = int(self.column("times_at")[row])
            times = tuple(self.column("times")[at : at + frames].tolist())
        return VideoFacts(
            frames=frames,
            width_px=width,
            height_px=height,
            rotation=rotation,
            tick_s=float(self.column("tick_s")[row]),
            first_pts=first,
            ticks_per_frame=float(self.column("ticks_per_frame")[row]),
            times=times,
            damaged=bool(self.column("damaged")[row]),
            counted=bool(self.column("counted")[row]),
        )

    def result(self, row: int) -> ProbeResult:
        """What probing a row showed, for building the index again."""
        reason = self.reasons[self.column("reason")[row]]
        return ProbeResult(
            facts=self.facts(row),
            content=self.content(row),
            origin=f"{int(self.column('origin')[row]):016x}",
            reason="" if reason == REPEATED else reason,
        )

    def stat(self, row: int) -> tuple[int, int]:
        """Size in bytes and modification time in ns of a row's file when it was probed."""
        size_bytes, changed_ns = self._numbers(row, "bytes", "changed_ns")
        return size_bytes, changed_ns

    def content(self, row: int) -> str:
        """32 hexadecimal digits, a hash of the frames and masks of a row's clip."""
        return self.column("content")[row].tobytes().hex()

    def _numbers(self, row: int, *names: str) -> list[int]:
        return [int(self.column(name)[row]) for name in names]
