"""Where results go: checked and reserved before any work, and never over an existing file by accident."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from ..errors import LoopAnimateError
from ..files import claim, require_file

MAX_STEM_BYTES = 200  # file systems hold names of 255 bytes


def free_path(path: Path) -> Path:
    """`path`, or the first of `name_2`, `name_3`, … that neither exists nor is reserved by another process."""
    stem, suffix = _short(path.stem), path.suffix
    for number in count(1):
        candidate = path.with_name(f"{stem}_{number}{suffix}" if number > 1 else f"{stem}{suffix}")
        if not os.path.lexists(candidate) and claim(candidate):
            return candidate
    raise AssertionError


def _short(stem: str) -> str:
    return os.fsdecode(os.fsencode(stem)[:MAX_STEM_BYTES])


def require_writable(path: Path, force: bool, *, folder: bool = False) -> Path:
    """Return `path` after checking that it can be written, and reserving it.

    Args:
        force: whether a file is replaced.
        folder: whether the result is a folder.

    Raises:
        LoopAnimateError: the file exists and `force` is false, another process is writing it, it is not a plain
            file, or its folder is missing or read-only.
    """
    if len(os.fsencode(path.name)) > 255:
        raise LoopAnimateError(f"cannot write {path}: the name has more than 255 bytes")
    if os.path.lexists(path) and not force:
        raise LoopAnimateError(f"{path} already exists; --force replaces it")
    if path.exists() and not (folder and path.is_dir()):
        require_file(path, "file to replace")
    parent = path.parent
    if not parent.is_dir():
        raise LoopAnimateError(f"cannot write {path}: there is no folder {parent}")
    if not os.access(parent, os.W_OK):
        raise LoopAnimateError(f"cannot write {path}: the folder {parent} is read-only")
    if not claim(path):
        raise LoopAnimateError(f"another process is writing {path}; choose another name")
    return path


def require_distinct(paths: Iterable[Path | None]) -> None:
    """Raise LoopAnimateError if two results would have one name."""
    seen: set[str] = set()
    for path in paths:
        if path is None:
            continue
        name = os.path.realpath(path).casefold()
        if name in seen:
            raise LoopAnimateError(f"{path} is named for two results; choose another name for one")
        seen.add(name)
