"""Which reader `data.path` needs: decided by what is there, and by the column names of tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from loopanimate_core.errors import LoopAnimateError

from ...config import DataConfig
from ...remote import walk
from .folders import FrameFolders, VideoFolder, folder_state, masks_in
from .layouts import known_table, open_tables
from .rows import PathRule, Reader, Row
from .tables import TABLE_SUFFIXES
from .tars import TarReader


def open_reader(data: DataConfig) -> Reader:
    """The reader for `data.path`.

    Raises:
        LoopAnimateError: there is nothing at `data.path`, or nothing that a reader understands.
    """
    reader = _open(data)
    if data.masks is None:
        return reader
    if not data.masks.is_dir():
        raise LoopAnimateError(f"data.masks must be a folder, but {data.masks} is not")
    return _WithMasks(reader, data.masks)


def _open(data: DataConfig) -> Reader:
    path = data.path
    if data.source == "frames":
        if not path.is_dir():
            raise LoopAnimateError(f"there are no clips in {path}: it is not a folder")
        return FrameFolders(path)
    if path.is_dir():
        return _open_folder(data)
    if not path.is_file():
        raise LoopAnimateError(f"there are no clips in {path}: it does not exist")
    if path.suffix.lower() == ".tar":
        return TarReader((path,))
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.zst")):
        raise LoopAnimateError(f"{path} is compressed, so its clips cannot be read; unpack it")
    return open_tables([path], _path_rule(data, path.parent), data.columns)


def _open_folder(data: DataConfig) -> Reader:
    """A folder holds a table of its videos (`metadata.*`), or tars, or Parquet files, or one table of a known
    data set (WebVid's `results_2M_train.csv`), or the videos."""
    path = data.path
    files = sorted(next(walk(path, _fail, at_most=1))[2])
    for suffix in TABLE_SUFFIXES:
        if f"metadata{suffix}" in files:
            return open_tables([path / f"metadata{suffix}"], _path_rule(data, path), data.columns)
    if tars := [path / name for name in files if name.lower().endswith(".tar")]:
        return TarReader(tuple(tars))
    if parts := [path / name for name in files if name.lower().endswith(".parquet")]:
        return open_tables(parts, _path_rule(data, path), data.columns)
    videos = VideoFolder(path)
    first = next(videos.rows(), None)
    if first is not None and first.caption:  # captions beside the videos go first
        return videos
    table = known_table([path / name for name in files])
    return videos if table is None else open_tables([table], _path_rule(data, path), data.columns)


def _fail(error: OSError) -> None:
    raise error


def _path_rule(data: DataConfig, folder: Path) -> PathRule:
    return PathRule(data.root or folder, data.outside == "allow")


@dataclasses.dataclass(frozen=True)
class _WithMasks:
    """The rows of another reader; those without masks get them from a folder."""

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
            if row.masks is None:
                row = dataclasses.replace(row, masks=masks_in(self.masks, row.id))
            yield row
