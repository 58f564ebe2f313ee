"""The pictures of a folder, in the same order on every machine."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import LoopAnimateError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})
BUNDLED = Path(__file__).parent.parent / "data/pictures"
"""The sample pictures that ship with the package."""


def list_pictures(root: Path, subfolder: str = "") -> list[Path]:
    """The picture files directly in `root/subfolder`, sorted by name, numbers by their value.

    Hidden files, and links to files outside `root`, are skipped.

    Raises:
        LoopAnimateError: the folder is missing, cannot be read, or is outside `root`.
    """
    top = root.resolve()
    folder = (top / subfolder).resolve()
    if folder != top and top not in folder.parents:
        raise LoopAnimateError(f"the folder {subfolder!r} is outside {root}")
    if not folder.is_dir():
        raise LoopAnimateError(f"there is no folder {subfolder!r} in {root}")
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise LoopAnimateError(f"cannot read {folder}: {error.strerror or error}") from error
    return sorted((entry for entry in entries if _is_picture(entry, top)), key=_order)


def _is_picture(path: Path, top: Path) -> bool:
    named = path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    return named and path.is_file() and top in path.resolve().parents


def _order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts `cat2` before `cat10` and `Cat` next to `cat`; ties by the exact name."""
    parts = re.split(r"(\d+)", path.name.casefold())
    keys = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
    return keys, path.name


def pick_picture(pictures: list[Path], index: int, folder: str) -> Path:
    """The picture with this index, from 0.

    Raises:
        LoopAnimateError: the folder is empty, or the index is out of range.
    """
    if not pictures:
        raise LoopAnimateError(f"the folder {folder!r} has no pictures")
    if not 0 <= index < len(pictures):
        raise LoopAnimateError(
            f"the folder {folder!r} has pictures 0 to {len(pictures) - 1}, so there is no picture {index};"
            " for all pictures start at 0 with 'increment'"
        )
    return pictures[index]
