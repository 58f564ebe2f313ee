"""The progress of batches, kept across crashes: one SQLite file with a row per picture and job.

A job is a workflow with its seed. Another workflow for the same folder is another job in the same file,
so that results of different jobs are never mixed up.

The file is data: what it says is checked when it is read, and names in it are never followed out of `--out`.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import LoopAnimateError
from ..files import require_file
from ..parsing import Fields, MalformedError, parse_json, plain_text
from .answers import MAX_FILES, ServerFile
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
    results TEXT NOT NULL,      -- JSON: the loops' names in the folder below
    saved TEXT NOT NULL DEFAULT '[]',  -- JSON: the loops on the server
    folder TEXT NOT NULL DEFAULT '',   -- where they were downloaded to; empty if they were not
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
    "saved",
    "folder",
]
_ADDED = {"saved": "'[]'", "folder": "''"}  # columns that files of earlier versions lack
_MAX_INTEGER = 2**63 - 1


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
    results: tuple[str, ...] = ()
    saved: tuple[ServerFile, ...] = ()
    folder: str = ""


class BatchState:
    """The open state file, which no other batch can open at the same time. Safe to use from threads."""

    def __init__(self, path: Path, job: str) -> None:
        self.path, self._job, self._lock = path, job, threading.Lock()
        if path.exists():
            require_file(path, "state file")
        try:
            self._db = sqlite3.connect(path, timeout=1, check_same_thread=False)
            # The lock is held until the file is closed or the process ends in any way.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA synchronous = FULL")
            with self._db:
                self._db.execute("BEGIN EXCLUSIVE")
                self._db.execute(_TABLE)
                self._add_columns()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                message = f"another batch is using {path}; wait for it or choose another --state"
            else:
                message = f"cannot write {path} ({error}); choose another file with --state"
            raise LoopAnimateError(message) from error
        except (
            sqlite3.Error,
            UnicodeDecodeError,
        ) as error:  # SQLite repeats a damaged name as it is
            raise LoopAnimateError(
                f"{path} is not the state file of a batch ({error}); choose another file with --state"
            ) from error

    def _add_columns(self) -> None:
        found = {row[1] for row in self._db.execute("PRAGMA table_info(pictures)")}
        for name in _ADDED.keys() - found:
            default = _ADDED[name]
            self._db.execute(
                f"ALTER TABLE pictures ADD COLUMN {name} TEXT NOT NULL DEFAULT {default}"
            )

    def close(self) -> None:
        """Let other batches open the file."""
        self._db.close()

    def records(self, pictures: Iterable[PictureFile]) -> dict[str, Record]:
        """The record of every picture, by its key; new and changed pictures have the status waiting.

        Raises:
            LoopAnimateError: the file is damaged.
        """
        with self._lock, self._guarded():
            rows = self._db.execute(
                f"SELECT picture, {', '.join(_COLUMNS)} FROM pictures WHERE job = ?", (self._job,)
            ).fetchall()
        try:
            known = {row[0]: _from_row(row) for row in rows}
        except MalformedError as error:
            raise LoopAnimateError(
                f"{self.path} is damaged: {error}; delete it, or choose another file with --state"
            ) from error
        records = {}
        for picture in pictures:
            fresh = Record(picture.key, picture.size_bytes, picture.mtime_ns)
            old = known.get(picture.key, fresh)
            same = (old.size_bytes, old.mtime_ns) == (fresh.size_bytes, fresh.mtime_ns)
            records[picture.key] = old if same else fresh
        return records

    def save(self, record: Record, **changes: Any) -> Record:
        """Write a record with these changes to the disk and return it.

        Raises:
            LoopAnimateError: the disk is full, or the file is damaged.
        """
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
            json.dumps([astuple(file) for file in record.saved]),
            record.folder,
        )
        columns, marks = ", ".join(["job", "picture", *_COLUMNS]), ", ".join("?" * len(values))
        with self._lock, self._guarded(), self._db:
            if record.expected and record.status == "posted":
                # This job will write a file of that name, so another job must not expect it any more.
                self._db.execute(
                    "UPDATE pictures SET expected = 'null' WHERE expected = ? AND server = ?",
                    (json.dumps(astuple(record.expected)), record.server),
                )
            self._db.execute(
                f"INSERT OR REPLACE INTO pictures ({columns}) VALUES ({marks})", values
            )
        return record

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """SQLite's errors as sentences."""
        try:
            yield
        except (sqlite3.Error, OverflowError, UnicodeDecodeError) as error:
            raise LoopAnimateError(
                f"cannot use {self.path} ({error}); if the disk is not full, delete it, or choose another"
                " file with --state"
            ) from error


def _from_row(row: tuple[Any, ...]) -> Record:
    values = dict(zip(["picture", *_COLUMNS], row, strict=True))
    fields = Fields(values, f"the row of {plain_text(values['picture'], 80)}")
    expected = _json(fields, "expected")
    status: Any = fields.choice("status", get_args(Status))
    return Record(
        picture=fields.text("picture", low=1),
        size_bytes=fields.whole("size_bytes", 0, _MAX_INTEGER),
        mtime_ns=fields.whole("mtime_ns", -_MAX_INTEGER, _MAX_INTEGER),
        status=status,
        server=fields.text("server"),
        prompt_id=fields.text("prompt_id"),
        attempts=fields.whole("attempts", 0, 1000),
        reason=plain_text(fields.text("reason"), 1000),
        expected=None if expected is None else _server_file(expected),
        results=_names(_json(fields, "results")),
        saved=tuple(map(_server_file, _list(_json(fields, "saved")))),
        folder=fields.text("folder"),
    )


def _json(fields: Fields, name: str) -> Any:
    return parse_json(fields.text(name, high=10**7), f"{name!r} of {fields.what}")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_FILES:
        raise MalformedError("a list of files is not one")
    return value


def _server_file(value: Any) -> ServerFile:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(v, str) for v in value):
        raise MalformedError("a file on a server is not a name and a folder")
    return ServerFile(*value)


def _names(value: Any) -> tuple[str, ...]:
    """The names of loops within `--out`; none if one leads elsewhere, as in files of earlier versions."""
    names = _list(value)
    inside = all(isinstance(name, str) and is_inside(name) for name in names)
    return tuple(names) if inside else ()


def is_inside(name: str) -> bool:
    """Whether a name is `file` or `folder/file`, which cannot lead out of the folder it is in."""
    parts = name.split("/")
    plain = "\\" not in name and ":" not in name and plain_text(name, 4 * 255) == name
    return plain and 1 <= len(parts) <= 2 and all(part.strip(". ") for part in parts)
