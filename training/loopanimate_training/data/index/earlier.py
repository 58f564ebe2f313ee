"""Results of earlier probes, found again by the state of a clip's files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..readers.rows import Blob, Row, pictures_in
from .probe import ProbeResult
from .table import ClipTable


class EarlierResults:
    """Results of an earlier index, and those in the journals of shares and of an interrupted one.

    Args:
        row_before: makes a row as an earlier version listed it, if that was different.
    """

    def __init__(
        self,
        old: ClipTable | None,
        journals: Iterable[Path],
        row_before: Callable[[Row], Row] | None = None,
    ) -> None:
        self._old = old
        self._noted = {key: line for path in journals for key, line in _noted(path)}
        self._row_before = row_before
        self._keys = self._order = np.zeros(0, np.uint64)
        if old is not None and len(old):
            self._signatures = np.ascontiguousarray(old.column("signature"))
            heads = self._signatures.view("<u8")[:, 0]
            self._order = np.argsort(heads, kind="stable")
            self._keys = heads[self._order]

    def get(self, signature: bytes) -> ProbeResult | None:
        """The result for files with this signature, None if they have not been probed."""
        if signature in self._noted:
            with suppress(ValueError, KeyError, TypeError):  # the last line, cut off
                return ProbeResult.from_json(self._noted[signature])
        head = np.frombuffer(signature, "<u8")[0]
        at = int(np.searchsorted(self._keys, head))
        while self._old is not None and at < len(self._keys) and self._keys[at] == head:
            row = int(self._order[at])
            if self._signatures[row].tobytes() == signature:
                return self._old.result(row)
            at += 1
        return None

    def get_before(self, row: Row) -> ProbeResult | None:
        """The result of an earlier version for a row, None if there is none."""
        if self._row_before is None:
            return None
        try:
            return self.get(signature_of(self._row_before(row)))
        except OSError:
            return None


def journal_line(signature: bytes, result: ProbeResult) -> str:
    """A line of the journal, in ASCII."""
    return f"{signature.hex()} {result.to_json()}\n"


def _noted(journal: Path) -> Iterator[tuple[bytes, str]]:
    """Signatures of a journal, and the results as text: millions of them stay in memory, and few are asked for."""
    with journal.open(encoding="ascii", errors="replace") as file:
        for line in file:
            signature, _, result = line.rstrip("\n").partition(" ")
            with suppress(ValueError):  # the last line, cut off
                yield bytes.fromhex(signature), result


def signature_of(row: Row) -> bytes:
    """16 bytes that change with the path, size and modification time of a clip's files.

    Raises:
        OSError: a file is missing.
    """
    masks = None if row.masks is None else (row.masks, stat_of(row.masks, inside=True))
    state = (row.media, stat_of(row.media, inside=True), row.start_s, row.end_s, masks)
    return hashlib.blake2b(repr(state).encode("utf-8", "surrogateescape"), digest_size=16).digest()


def stat_of(blob: Blob, inside: bool = False) -> tuple[int, int]:
    """Size in bytes and modification time in ns of a file; of a folder (-1, 0), or with `inside` those of
    its pictures together.

    Raises:
        OSError: the file is missing.
    """
    if not blob.path.is_dir():
        stat = blob.path.stat()
        return stat.st_size, stat.st_mtime_ns
    if not inside:
        return -1, 0
    stats = [path.stat() for path in pictures_in(blob.path)]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)
