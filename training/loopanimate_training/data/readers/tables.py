"""Tables as rows of named values: .csv, .tsv, .jsonl and .parquet."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.parsing import MalformedError, parse_json

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
Values = Mapping[str, Any]
_LONGEST_FIELD = 1 << 26  # characters; Panda-70M keeps all clips of a video in one field


def read_table(path: Path) -> Iterator[Values | None]:
    """The rows of a table by column name; None for a row that cannot be read.

    Text is decoded as UTF-8. Other bytes become surrogates, which `checked_text` refuses.

    Raises:
        LoopAnimateError: the file cannot be opened, or is not a table.
    """
    read = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".jsonl": _read_jsonl,
        ".parquet": _read_parquet,
    }.get(path.suffix.lower())
    if read is None:
        raise LoopAnimateError(
            f"cannot read the table {path}: it must end in {', '.join(TABLE_SUFFIXES)}"
        )
    try:
        yield from read(path)
    except (OSError, csv.Error) as error:
        raise LoopAnimateError(f"cannot read the table {path}: {error}") from error


def columns_of(path: Path) -> list[str]:
    """The column names of a table (for .jsonl those of its first row).

    Raises:
        LoopAnimateError: the table cannot be read, or is empty.
    """
    first = next((values for values in read_table(path) if values is not None), None)
    if first is None:
        raise LoopAnimateError(f"the table {path} has no rows")
    return list(first)


def _read_csv(path: Path) -> Iterator[Values | None]:
    csv.field_size_limit(_LONGEST_FIELD)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    # utf-8-sig: spreadsheets write a byte order mark before the first column name.
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        for values in csv.DictReader(file, delimiter=delimiter):
            # Too many fields (an unquoted comma in a caption) or too few: columns do not match.
            misaligned = None in values or None in values.values()
            yield None if misaligned else values


def _read_jsonl(path: Path) -> Iterator[Values | None]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                values = parse_json(line, "a row", finite=False)
            except MalformedError:
                yield None
                continue
            yield values if isinstance(values, dict) else None


def _read_parquet(path: Path) -> Iterator[Values | None]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise LoopAnimateError(
            f"reading {path.name} needs pyarrow: pip install 'loopanimate[parquet]'"
        ) from error
    try:
        with path.open("rb") as file:
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise LoopAnimateError(f"cannot read the table {path}: {error}") from error
