"""Rows as values for JSON, to be sent to child processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ...remote import data_path
from .rows import Blob, Row


def to_request(row: Row) -> dict[str, Any]:
    """What a child needs to read the clip, as values for JSON."""
    return {
        "media": _values(row.media),
        "masks": None if row.masks is None else _values(row.masks),
        "start_s": row.start_s,
        "end_s": row.end_s,
        "caption": row.caption,
    }


def from_request(request: Mapping[str, Any]) -> Row:
    """The row that a request describes, without its id."""
    return Row(
        id="",
        media=_blob(request["media"]),
        caption=request["caption"],
        masks=None if request["masks"] is None else _blob(request["masks"]),
        start_s=request["start_s"],
        end_s=request["end_s"],
    )


def _values(blob: Blob) -> list[Any]:
    return [os.fspath(blob.path), blob.offset, blob.size]


def _blob(values: list[Any]) -> Blob:
    path, offset, size = values
    return Blob(data_path(path), offset, size)
