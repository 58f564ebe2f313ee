"""The progress of batches, kept across crashes: one SQLite file with a row per picture and job.

A job is a workflow with its seed. Another workflow for the same folder is another job in the same file,
so that results of different jobs are never mixed up.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import LoopAnimateError
from .client import ServerFile
from .pictures import PictureFile

Status = Literal["waiting", "posted", "done", "failed"]

_TABLE = """
CREATE TABLE IF NOT EXISTS pictures (
    job TEXT NOT NULL,
    picture TEXT NOT NULL,      -- its file name
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    status TEXT NOT NULL,       -- waiting, posted, done, failed
    server TEXT NOT NULL,       -- where it was posted last
    prompt_id TEXT NOT NULL,    -- under which id
    attempts INTEGER NOT NULL,  -- how often a server died while it ran
    reason TEXT NOT NULL,       -- why it failed
    expected TEXT NOT NULL,     -- JSON: the file the posted prompt will save, if that can be told
    results TEXT NOT NULL,      -- JSON: the loops, as paths here or names on the server
    PRIMARY KEY (job, picture)
)
"""
_COLUMNS = [
    "size_bytes",
    "mtime_ns",
    "status",
    "server",
    "prompt_id",
    "attempts",
    "reason",
    "expected",
    "results",
]


@dataclass(frozen=True)
class Record:
    """The row of one picture; see the table for its fields."""

    picture: str
    size_bytes: int
    mtime_ns: int
    status: Status = "waiting"
    server: str = ""
    prompt_id: str = ""
    attempts: int = 0
    reason: str = ""
    expected: ServerFile | None = None
    results: tuple[str, ...] = field(default=())


class BatchState:
    """The open state file, which no other batch can open at the same time. Safe to use from threads."""

    def __init__(self, path: Path, job: str) -> None:
        self.path, self._job, self._lock = path, job, threading.Lock()
        try:
            self._db = sqlite3.connect(path, timeout=1, check_same_thread=False)
            # The lock is held until the file is closed or the process ends in any way.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA synchronous = FULL")
            with self._db:
                self._db.execute("BEGIN EXCLUSIVE")
                self._db.execute(_TABLE)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                message = f"another batch is using {path}; wait for it or choose another --state"
            else:
                message = f"cannot write {path} ({error}); choose another file with --state"
            raise LoopAnimateError(message) from error
        except sqlite3.DatabaseError as error:
            raise LoopAnimateError(
                f"{path} is not the state file of a batch ({error}); choose another file with --state"
            ) from error

    def close(self) -> None:
        """Let other batches open the file."""
        self._db.close()

    def records(self, pictures: Iterable[PictureFile]) -> dict[str, Record]:
        """The record of every picture, by its key; new and changed pictures have the status waiting."""
        with self._lock:
            rows = self._db.execute(
                f"SELECT picture, {', '.join(_COLUMNS)} FROM pictures WHERE job = ?", (self._job,)
            ).fetchall()
        known = {row[0]: _from_row(row) for row in rows}
        records = {}
        for picture in pictures:
            fresh = Record(picture.key, picture.size_bytes, picture.mtime_ns)
            old = known.get(picture.key, fresh)
            same = (old.size_bytes, old.mtime_ns) == (fresh.size_bytes, fresh.mtime_ns)
            records[picture.key] = old if same else fresh
        return records

    def save(self, record: Record, **changes: Any) -> Record:
        """Write a record with these changes to the disk and return it."""
        record = replace(record, **changes)
        values = (
            self._job,
            record.picture,
            record.size_bytes,
            record.mtime_ns,
            record.status,
            record.server,
            record.prompt_id,
            record.attempts,
            record.reason,
            json.dumps(record.expected and astuple(record.expected)),
            json.dumps(record.results),
        )
        marks = ", ".join("?" * len(values))
        with self._lock, self._db:
            if record.expected and record.status == "posted":
                # This job will write a file of that name, so another job must not expect it any more.
                self._db.execute(
                    "UPDATE pictures SET expected = 'null' WHERE expected = ? AND server = ?",
                    (json.dumps(astuple(record.expected)), record.server),
                )
            self._db.execute(f"INSERT OR REPLACE INTO pictures VALUES ({marks})", values)
        return record


def _from_row(row: tuple) -> Record:
    values = dict(zip(["picture", *_COLUMNS], row, strict=True))
    expected = json.loads(values["expected"])
    values["expected"] = expected and ServerFile(*expected)
    values["results"] = tuple(json.loads(values["results"]))
    return Record(**values)
