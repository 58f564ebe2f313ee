"""Append-only JSON Lines files that survive a full disk."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)


class JsonlWriter:
    """Appends rows to a JSON Lines file. Rows that do not fit on the disk are kept and written later.

    May be used from several threads. Numbers that are not finite are written as null.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending = b""
        self._lock = threading.Lock()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one row, after those that are still waiting."""
        line = json.dumps({key: _finite(value) for key, value in record.items()}) + "\n"
        with self._lock:
            self._pending += line.encode()
            try:
                self._append()
            except OSError as error:
                _log.warning("%s waits for space on the disk: %s", self.path, error)

    def sync(self) -> None:
        """Make sure that every row is on the disk.

        Raises:
            OSError: the disk is full or failing.
        """
        with self._lock:
            self._append()
            if self.path.exists():
                with self.path.open("rb") as file:
                    os.fsync(file.fileno())

    def _append(self) -> None:
        if not self._pending:
            return
        with self.path.open("a+b", buffering=0) as file:
            end, lines = file.seek(0, os.SEEK_END), self._pending
            file.seek(max(end - 1, 0))
            if end and file.read(1) != b"\n":
                lines = b"\n" + lines  # a crash cut off the last line
            try:
                if file.write(lines) != len(lines):
                    raise OSError("only a part was written")
            except OSError:
                file.truncate(end)
                raise
        self._pending = b""


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
