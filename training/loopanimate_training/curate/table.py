"""The result as a table: a row for every clip, in Parquet. The trainer reads it and uses the kept ones."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

from ..data.readers.layouts import CURATED_COLUMNS, KEPT
from ..data.readers.rows import Blob
from .driver import Verdict
from .measure import Scores

_ROWS = 8192  # of a row group


def require_pyarrow() -> Any:
    """Import pyarrow.

    Raises:
        LoopAnimateError: it is not installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise LoopAnimateError(
            "writing a table needs pyarrow: pip install 'loopanimate[parquet]'"
        ) from error


def write_table(path: Path, verdicts: Sequence[Verdict]) -> bool:
    """Write the verdicts; returns whether every kept clip is below the table's folder.

    Paths below that folder are written relative to it, others as absolute ones.

    Raises:
        LoopAnimateError: pyarrow is not installed, or the file cannot be written.
    """
    pyarrow, folder = require_pyarrow(), path.resolve().parent
    schema = pyarrow.schema([(name, kind) for name, kind in _kinds(pyarrow).items()])
    assert set(CURATED_COLUMNS) <= set(schema.names)
    rows = (_values(verdict, folder) for verdict in verdicts)
    with atomic_write(path) as partial, pyarrow.parquet.ParquetWriter(partial, schema) as writer:
        while part := list(islice(rows, _ROWS)):
            writer.write_table(pyarrow.Table.from_pylist(part, schema))
    return all(
        verdict.row.media.path.resolve().is_relative_to(folder)
        for verdict in verdicts
        if verdict.status == KEPT
    )


def _kinds(pyarrow: Any) -> dict[str, Any]:
    """Every column with its Arrow type."""
    text, number, real = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    kinds = {
        **dict.fromkeys(("id", "path", "caption", "mask_path", "status", "reason", "detail"), text),
        **dict.fromkeys(("start_s", "end_s"), real),
        **dict.fromkeys(("offset_bytes", "size_bytes"), number),
        **dict.fromkeys(("mask_offset_bytes", "mask_size_bytes"), number),
        "reasons": pyarrow.list_(text),
        "changed_frames": pyarrow.list_(number),
    }
    plain = {int: number, float: real, str: text, bool: pyarrow.bool_()}
    for name, kind in get_type_hints(Scores).items():
        if name not in ("changes", "windows"):
            one = get_args(kind)[0] if isinstance(kind, UnionType) else kind
            kinds[name] = plain[one]
    return kinds


def _values(verdict: Verdict, folder: Path) -> dict[str, Any]:
    row, scores = verdict.row, verdict.outcome.scores
    values: dict[str, Any] = {
        "id": row.id,
        "path": _path(row.media, folder),
        "caption": row.caption,
        "mask_path": None if row.masks is None else _path(row.masks, folder),
        "start_s": row.start_s,
        "end_s": row.end_s,
        "offset_bytes": row.media.offset,
        "size_bytes": row.media.size,
        "mask_offset_bytes": row.masks and row.masks.offset,
        "mask_size_bytes": row.masks and row.masks.size,
        "status": verdict.status,
        "reason": verdict.reason,
        "detail": verdict.faults[0].detail if verdict.faults else verdict.note,
        "reasons": [fault.reason for fault in verdict.faults],
    }
    if scores is not None:
        values |= dataclasses.asdict(scores)
        values["changed_frames"] = [frame for frame, _ in values.pop("changes")]
        del values["windows"]
    return {
        name: _utf8(value) if isinstance(value, str) else value for name, value in values.items()
    }


def _utf8(text: str) -> str:
    """Text that Parquet accepts; bytes of file names that are not UTF-8 are escaped, and such clips were refused."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _path(blob: Blob, folder: Path) -> str:
    path = blob.path.resolve()
    return os.fspath(path.relative_to(folder) if path.is_relative_to(folder) else path)
