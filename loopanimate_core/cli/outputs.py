"""Where results go: checked before any work, and never over an existing file by accident."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import LoopAnimateError


def free_path(path: Path) -> Path:
    """`path`, or the first of `name_2`, `name_3`, … that does not exist."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return candidate


def require_writable(path: Path, force: bool) -> Path:
    """Return `path` after checking that it can be written without replacing a file by accident.

    Raises:
        LoopAnimateError: the file exists and `force` is false, or its folder is missing or read-only.
    """
    if path.exists() and not force:
        raise LoopAnimateError(f"{path} already exists; --force replaces it")
    folder = path.parent
    if not folder.is_dir():
        raise LoopAnimateError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise LoopAnimateError(f"cannot write {path}: the folder {folder} is read-only")
    return path


def make_folder(path: Path) -> None:
    """Make a folder for results, with those above it.

    Raises:
        LoopAnimateError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoopAnimateError(f"cannot make the folder {path}: {error.strerror}") from error
