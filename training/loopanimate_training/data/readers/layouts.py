"""What the columns of a table mean: WebVid, Panda-70M, OpenVid-1M, and custom tables.

Columns are found by name, not by position: releases of one data set order them differently.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loopanimate_core.errors import LoopAnimateError

from .rows import BAD_ROW, Blob, PathRule, Row, RowProblem, checked_text, file_state
from .tables import TABLE_SUFFIXES, Values, columns_of, read_table

# Column names used in custom tables, and in those of other trainers.
ALIASES: dict[str, tuple[str, ...]] = {
    "path": ("path", "file_name", "video_path", "video", "file", "media_path"),
    "caption": ("caption", "text", "prompt"),
    "mask": ("mask_path", "mask"),
    "start": ("start_s", "start"),
    "end": ("end_s", "end"),
    "id": ("id", "videoid", "key"),
}
# Of a table that `loopanimate-train curate` has written.
CURATED_COLUMNS = ("id", "path", "caption", "mask_path", "start_s", "end_s")
CURATED_COLUMNS += ("offset_bytes", "size_bytes", "mask_offset_bytes", "mask_size_bytes")
CURATED_COLUMNS += ("status", "reason")
KEPT = "kept"
Columns = Mapping[str, str]  # meaning to column name
RowMaker = Callable[[Values, PathRule, Columns], Iterator[Row]]


@dataclass(frozen=True)
class TableReader:
    """The tables of one data set, read one after the other."""

    tables: tuple[Path, ...]
    rule: PathRule
    columns: Columns
    name: str
    make: RowMaker

    def state(self) -> Iterator[str]:
        yield f"{self.rule} {sorted(self.columns.items())}"
        yield from (file_state(table) for table in self.tables)

    def rows(self) -> Iterator[Row]:
        for table in self.tables:
            for number, values in enumerate(read_table(table), start=1):
                name = f"{table.name} row {number}"
                if values is None:
                    yield Row(name, Blob(table), reason=BAD_ROW)
                    continue
                try:
                    yield from self.make(values, self.rule, self.columns)
                except RowProblem as problem:
                    yield Row(name, Blob(table), reason=str(problem))


def open_tables(tables: Sequence[Path], rule: PathRule, columns: Columns) -> TableReader:
    """A reader for tables that all have the columns of the first.

    Args:
        columns: column names by meaning, for names that are not in `ALIASES`.

    Raises:
        LoopAnimateError: no column is known as the path or the caption.
    """
    names = columns_of(tables[0])
    if wrong := sorted(set(columns) - set(ALIASES)):
        raise LoopAnimateError(
            f"data.columns has the key {wrong[0]!r}; the keys may be {', '.join(ALIASES)}"
        )
    if absent := sorted(set(columns.values()) - set(names)):
        raise LoopAnimateError(
            f"{tables[0]} has no column {absent[0]!r}; it has {', '.join(names)}"
        )
    if not columns:
        for layout, needed, make in _LAYOUTS:
            if needed <= set(names):
                return TableReader(tuple(tables), rule, {}, layout, make)
    found = {
        meaning: next((alias for alias in aliases if alias in names), "")
        for meaning, aliases in ALIASES.items()
    }
    found = {meaning: name for meaning, name in (found | dict(columns)).items() if name}
    for meaning in ("path", "caption"):
        if meaning not in found:
            raise LoopAnimateError(
                f"{tables[0]} has no column for the {meaning} among {', '.join(names)}; "
                f"set data.columns.{meaning} to its name"
            )
    return TableReader(tuple(tables), rule, found, f"{tables[0].suffix[1:]} table", _plain_rows)


def known_table(files: Sequence[Path]) -> Path | None:
    """The table among some files that has the columns of a known data set; None: there is none.

    Raises:
        LoopAnimateError: there are several, such as WebVid's for training and for validation.
    """
    found = []
    for file in files:
        if file.suffix.lower() in TABLE_SUFFIXES:
            with suppress(LoopAnimateError):  # another program's file
                names = set(columns_of(file))
                found += [file] * any(needed <= names for _, needed, _ in _LAYOUTS)
    if len(found) > 1:
        raise LoopAnimateError(
            f"{found[0].parent} holds several tables of clips ({', '.join(file.name for file in found)}); give one of"
            " them as data.path"
        )
    return found[0] if found else None


def _plain_rows(values: Values, rule: PathRule, columns: Columns) -> Iterator[Row]:
    path = rule.resolve(_text(values, columns["path"]))
    mask = _text(values, columns.get("mask", ""))
    yield Row(
        id=_text(values, columns.get("id", ""))
        or os.path.splitext(_text(values, columns["path"]))[0],
        media=Blob(path),
        caption=checked_text(_text(values, columns["caption"])),
        masks=Blob(rule.resolve(mask)) if mask else None,
        start_s=_seconds(values.get(columns.get("start", ""))),
        end_s=_seconds(values.get(columns.get("end", ""))),
    )


def _webvid_rows(values: Values, rule: PathRule, columns: Columns) -> Iterator[Row]:
    """`duration` is ignored because it is often wrong. Files are where the usual downloaders put them."""
    video, page = _text(values, "videoid"), _text(values, "page_dir")
    if not video:
        raise RowProblem(BAD_ROW)
    places = [f"{page}/{video}.mp4", f"videos/{page}/{video}.mp4"] if page else []
    path = rule.first([*places, f"{video}.mp4", f"videos/{video}.mp4"])
    yield Row(video, Blob(path), checked_text(_text(values, "name")))


def _openvid_rows(values: Values, rule: PathRule, columns: Columns) -> Iterator[Row]:
    video = _text(values, "video")
    path = rule.first([f"video/{video}" if video else "", video])
    yield Row(video, Blob(path), checked_text(_text(values, "caption")))


def _panda_rows(values: Values, rule: PathRule, columns: Columns) -> Iterator[Row]:
    """A row is a whole video; lists of equal length hold the times and captions of its clips."""
    video = _text(values, "videoID")
    if not video:
        raise RowProblem(BAD_ROW)
    times, captions = _list(values["timestamp"]), _list(values["caption"])
    if len(times) != len(captions):
        raise RowProblem(BAD_ROW)
    path = rule.first([f"{video}{suffix}" for suffix in (".mp4", ".webm", ".mkv")])
    for number, (span, caption) in enumerate(zip(times, captions, strict=True)):
        name = f"{video}_{number}"
        try:
            if not isinstance(span, list | tuple) or len(span) != 2:
                raise RowProblem(BAD_ROW)
            start, end = (_seconds(time) for time in span)
            yield Row(name, Blob(path), checked_text(str(caption)), start_s=start, end_s=end)
        except RowProblem as problem:
            yield Row(name, Blob(path), reason=str(problem))


def _curated_rows(values: Values, rule: PathRule, columns: Columns) -> Iterator[Row]:
    """Clips that curation did not keep stay in the list, with its reason."""
    if _text(values, "status") != KEPT:
        name, reason = _text(values, "id"), _text(values, "reason")
        yield Row(name, Blob(rule.root), reason=f"not kept by curate: {reason}")
        return
    for row in _plain_rows(values, rule, _CURATED):
        masks = row.masks and _part(row.masks, values, "mask_")
        yield replace(row, media=_part(row.media, values), masks=masks)


def _part(blob: Blob, values: Values, prefix: str = "") -> Blob:
    """The part of a file, such as a member of a tar, that two columns describe."""
    try:
        offset, size = (int(values[f"{prefix}{name}_bytes"]) for name in ("offset", "size"))
    except (TypeError, ValueError) as error:
        raise RowProblem(BAD_ROW) from error
    return Blob(blob.path, offset, size)


_CURATED = {"path": "path", "caption": "caption", "mask": "mask_path"}
_CURATED |= {"start": "start_s", "end": "end_s", "id": "id"}
_LAYOUTS: tuple[tuple[str, set[str], RowMaker], ...] = (
    ("curated table", set(CURATED_COLUMNS), _curated_rows),
    ("WebVid", {"videoid", "page_dir", "name"}, _webvid_rows),
    ("WebVid", {"videoid", "contentUrl", "name"}, _webvid_rows),
    ("Panda-70M", {"videoID", "timestamp", "caption"}, _panda_rows),
    ("OpenVid-1M", {"video", "caption", "aesthetic score"}, _openvid_rows),
)


def _text(values: Values, column: str) -> str:
    value = values.get(column)
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise RowProblem(BAD_ROW)
    return str(value).strip()


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise RowProblem(BAD_ROW) from error
    if not isinstance(value, list | tuple):
        raise RowProblem(BAD_ROW)
    return list(value)


def _seconds(value: Any) -> float | None:
    """Seconds from a number or from text such as `0:01:16.300`; None for an empty value."""
    if value is None or value == "":
        return None
    try:
        seconds = 0.0
        for part in str(value).split(":"):
            seconds = 60 * seconds + float(part)
    except ValueError as error:
        raise RowProblem(BAD_ROW) from error
    if not 0 <= seconds < 1e7:  # refuses NaN too
        raise RowProblem(BAD_ROW)
    return seconds
