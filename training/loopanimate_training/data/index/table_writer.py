"""Writing the index file; its layout is described in `table.py`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from loopanimate_core.files import atomic_write

from ..readers.rows import Blob, Row
from .probe import ProbeResult
from .table import COLUMNS, MAGIC, NAMES, REPEATED, aligned


class TableWriter:
    """Collects rows in temporary files, then writes the index in one piece. Use as a context."""

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

    def add(self, row: Row, result: ProbeResult, signature: bytes, stat: tuple[int, int]) -> None:
        """Append a row; `stat` is the size in bytes and the modification time in ns of its file."""
        masks = "" if row.masks is None else os.fspath(row.masks.path)
        texts = (row.id, os.fspath(row.media.path), row.caption, masks)
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        values = self._values(row, result, encoded) | {
            "signature": tuple(signature),
            "bytes": stat[0],
            "changed_ns": stat[1],
        }
        record = tuple(values[name] for name in NAMES)
        self._rows.write(np.array(record, COLUMNS).tobytes())
        self._times.write(np.asarray(result.facts.times, "<i8").tobytes())
        self._letters.write(b"".join(encoded))
        self._count += 1
        self._times_count += len(result.facts.times)
        self._length += sum(map(len, encoded))

    def _values(self, row: Row, result: ProbeResult, texts: Sequence[bytes]) -> dict[str, Any]:
        """The columns of a row, by name."""
        facts, masks = result.facts, row.masks or Blob(Path())
        caption_hash = hashlib.blake2b(texts[2], digest_size=8).digest()
        return {
            "reason": self._reason(row.reason or result.reason),
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
            "start_s": np.nan if row.start_s is None else row.start_s,
            "end_s": np.nan if row.end_s is None else row.end_s,
            "offset": row.media.offset,
            "size": row.media.size,
            "mask_offset": masks.offset,
            "mask_size": masks.size,
            "text_at": self._length,
            "lengths": [len(text) for text in texts],
            "caption_hash": int.from_bytes(caption_hash, "little"),
            "content": tuple(bytes.fromhex(result.content)),
            "origin": int(result.origin, 16),
        }

    def finish(self, state: str, reader: str) -> None:
        """Write the index. A row with the content and caption of an earlier one gets the reason `REPEATED`."""
        for file in (self._rows, self._times, self._letters):
            file.flush()
        rows = self._mark_repeated(self._reason(REPEATED))
        blocks, offset = {}, 0
        for name, kind, size in self._sizes():
            blocks[name] = [kind, offset, size]
            offset = aligned(offset + size)
        header = {
            "state": state,
            "reader": reader,
            "rows": self._count,
            "reasons": self.reasons,
            "blocks": blocks,
        }
        encoded = json.dumps(header).encode("ascii")
        with atomic_write(self.path) as partial, partial.open("wb") as file:
            file.write(MAGIC + len(encoded).to_bytes(8, "little") + encoded)
            start = aligned(file.tell())
            for name, (_, offset, _) in blocks.items():
                file.seek(start + offset)
                if name in NAMES:
                    file.write(np.ascontiguousarray(rows[name]).tobytes())
                else:
                    source = self._times if name == "times" else self._letters
                    source.seek(0)
                    shutil.copyfileobj(source, file, 1 << 20)
            file.truncate(start + max(o + size for _, o, size in blocks.values()))

    def _sizes(self) -> list[tuple[str, str, int]]:
        """Name, dtype and bytes of every block."""
        columns = [(n, COLUMNS[n].base.str, self._count * COLUMNS[n].itemsize) for n in NAMES]
        return [*columns, ("times", "<i8", 8 * self._times_count), ("letters", "|u1", self._length)]

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
        # Of equal rows the first in the data set's order is kept. Unusable rows keep their own reason.
        repeated = order[1:][equal]
        rows["reason"][repeated[rows["reason"][repeated] == 0]] = reason
        return rows
