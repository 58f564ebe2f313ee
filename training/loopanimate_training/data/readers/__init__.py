"""Readers: data sets as people have them, listed as `Row`s."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from loopanimate_core.errors import LoopAnimateError

from .carriers import TABLE_SUFFIXES
from .folders import FrameFolders, VideoFolder, folder_state, masks_in
from .layouts import open_tables
from .rows import Blob, PathRule, Reader, Row
from .tars import TarReader

if TYPE_CHECKING:
    from ...config import DataConfig

__all__ = ["Blob", "Reader", "Row", "open_reader"]


def open_reader(data: DataConfig) -> Reader:
    """The reader for `data.path`: what it is, and what its columns are called, decide.

    Raises:
        LoopAnimateError: nothing is there, or nothing that any reader knows.
    """
    reader = _open(data)
    if data.masks is None:
        return reader
    if not data.masks.is_dir():
        raise LoopAnimateError(f"data.masks is {data.masks}; that is no folder")
    return _WithMasks(reader, data.masks)


def _open(data: DataConfig) -> Reader:
    path = data.path
    if data.source == "frames":
        if not path.is_dir():
            raise LoopAnimateError(f"there are no clips in {path}")
        return FrameFolders(path)
    if path.is_dir():
        return _open_folder(data)
    if not path.is_file():
        raise LoopAnimateError(f"there are no clips in {path}: it does not exist")
    if path.suffix.lower() == ".tar":
        return TarReader((path,))
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.zst")):
        raise LoopAnimateError(f"{path} is compressed, so no clip in it can be reached; unpack it")
    return open_tables([path], _rule(data, path.parent), data.columns)


def _open_folder(data: DataConfig) -> Reader:
    """A folder holds a table of its videos, or tars, or part files, or the videos themselves."""
    path = data.path
    files = sorted(entry.name for entry in os.scandir(path) if entry.is_file())
    for suffix in TABLE_SUFFIXES:
        if f"metadata{suffix}" in files:
            return open_tables([path / f"metadata{suffix}"], _rule(data, path), data.columns)
    for suffix in (".tar", ".parquet"):
        parts = [path / name for name in files if name.lower().endswith(suffix)]
        if parts and suffix == ".tar":
            return TarReader(tuple(parts))
        if parts:
            return open_tables(parts, _rule(data, path), data.columns)
    return VideoFolder(path)


def _rule(data: DataConfig, folder: Path) -> PathRule:
    return PathRule(data.root or folder, data.outside == "allow")


@dataclasses.dataclass(frozen=True)
class _WithMasks:
    """Another reader's rows with masks from a folder, where they had none."""

    reader: Reader
    masks: Path

    @property
    def name(self) -> str:
        return self.reader.name

    def state(self) -> Iterator[str]:
        yield from self.reader.state()
        yield from folder_state(self.masks)

    def rows(self) -> Iterator[Row]:
        for row in self.reader.rows():
            yield (
                row if row.masks else dataclasses.replace(row, masks=masks_in(self.masks, row.id))
            )
