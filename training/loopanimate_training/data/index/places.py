"""Where a data set's index is: one name however the paths of the data set are written, in one of three folders."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

from ...config import DataConfig
from ..readers.rows import Blob, Row

VERSION = 2
SUFFIX = ".clips"


def with_real_paths(data: DataConfig) -> DataConfig:
    """The data set with absolute paths without symbolic links.

    A table or tar that is a link itself keeps its folder: paths in a table are relative to it.
    """
    paths = {name: getattr(data, name) for name in ("path", "root", "masks")}
    real = {name: _real(path) for name, path in paths.items() if path is not None}
    return data.model_copy(update=real)


def index_path(data: DataConfig) -> Path:
    """The file of a data set's index: in `data.index`, else in `data.cache`, else in the user's cache folder."""
    return (data.index or data.cache or user_folder()) / _name(with_real_paths(data))


def other_places(data: DataConfig) -> list[Path]:
    """Where else the same index may be: in the other folders, and under the name that earlier versions gave it."""
    folders = [folder for folder in (data.index, data.cache, user_folder()) if folder is not None]
    names = _name(with_real_paths(data)), _name(data.model_copy(update={"path": _real(data.path)}))
    places = [folder / name for name in names for folder in folders]
    return [place for place in dict.fromkeys(places) if place != index_path(data)]


def user_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "loopanimate" / "index"


def copy_index(source: Path, target: Path) -> None:
    """Copy an index, completely or not at all."""
    with atomic_write(target) as partial:
        shutil.copyfile(source, partial)


def make_known(data: DataConfig) -> None:
    """Leave a link in the user's folder to an index in `data.cache`, so that commands without a cache find it.

    Nothing depends on it, so failures are ignored. Links to indices that are gone are removed.
    """
    path, folder = index_path(data), user_folder()
    if data.index is not None or path.parent == folder:
        return
    with suppress(OSError, LoopAnimateError, NotImplementedError):
        folder.mkdir(parents=True, exist_ok=True)
        for link in folder.glob(f"*{SUFFIX}"):
            if link.is_symlink() and not link.exists():
                link.unlink()
        new = folder / f".link-{os.getpid()}-{path.name}"
        new.symlink_to(path.absolute())
        os.replace(new, folder / path.name)


def names_before(data: DataConfig) -> Callable[[Row], Row] | None:
    """Makes a row as earlier versions listed it, with the paths as `data` has them; None if these are real paths."""
    real = with_real_paths(data)
    if real == data:
        return None
    pairs = [(real.masks, data.masks), (real.root, data.root)]
    pairs += [(real.path, data.path), (real.path.parent, data.path.parent)]

    def written(blob: Blob) -> Blob:
        for base, text in pairs:
            if base is not None and text is not None and blob.path.is_relative_to(base):
                return dataclasses.replace(blob, path=text / blob.path.relative_to(base))
        return blob

    def row_before(row: Row) -> Row:
        masks = None if row.masks is None else written(row.masks)
        return dataclasses.replace(row, media=written(row.media), masks=masks)

    return row_before


def _real(path: Path) -> Path:
    return path.resolve() if path.is_dir() else path.parent.resolve() / path.name


def _name(data: DataConfig) -> str:
    settings = (
        VERSION,
        data.source,
        str(data.path),
        str(data.root),
        str(data.masks),
        data.outside,
        sorted(data.columns.items()),
        data.clips,
    )
    digest = hashlib.blake2b(repr(settings).encode("utf-8", "surrogateescape"), digest_size=6)
    return f"{data.path.stem}-{digest.hexdigest()}{SUFFIX}"
