"""Loops as folders of PNGs: frame_00000.png, frame_00001.png, …"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import LoopAnimateError
from ..files import partial_folder
from ..picture.opening import open_picture, reading
from .animation import png_text

FRAME_NAME = re.compile(r"frame_\d{5,}\.png")


def write_folder(frames: Iterable[np.ndarray], path: Path, metadata: dict[str, str]) -> None:
    """Write uint8 frames as frame_00000.png, frame_00001.png, …; the first stores the metadata.

    The folder is written completely or not at all. An older sequence at `path` is replaced; a folder
    with any other file in it is an error.
    """
    _require_replaceable(path)
    with _atomic_folder(path) as folder:
        for index, frame in enumerate(frames):
            with (folder / f"frame_{index:05d}.png").open("wb") as file:
                text = png_text(metadata if index == 0 else {})
                Image.fromarray(frame).save(file, "PNG", pnginfo=text)
                file.flush()
                os.fsync(file.fileno())


def frame_files(folder: Path) -> list[Path]:
    """The PNGs of a folder, sorted by name; raises LoopAnimateError if there are none."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".png")
    if not files:
        raise LoopAnimateError(f"the folder {folder} has no .png files")
    return files


def read_folder(folder: Path) -> Iterator[np.ndarray]:
    """The pictures of a folder, sorted by name, uint8 `[H, W, 4]`.

    Raises:
        LoopAnimateError: there are none, one is damaged, or their sizes differ.
    """
    size = None
    for file in frame_files(folder):
        with reading(file), open_picture(file) as picture:
            pixels = np.asarray(picture.convert("RGBA"))
        if size not in (None, pixels.shape):
            raise LoopAnimateError(
                f"{file} has another size than the frames before it in the folder"
            )
        size = pixels.shape
        yield pixels


def _require_replaceable(path: Path) -> None:
    if path.is_file():
        raise LoopAnimateError(f"cannot write the folder {path}: a file has that name")
    if path.is_dir():
        for entry in path.iterdir():
            if not FRAME_NAME.fullmatch(entry.name):
                raise LoopAnimateError(
                    f"the folder {path} is not replaced by a PNG sequence, because it contains {entry.name}"
                )


@contextmanager
def _atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` on success and is deleted otherwise."""
    try:
        with partial_folder(path.parent) as temporary:
            new, old = temporary / "new", temporary / "old"
            try:
                new.mkdir()  # the temporary folder is private; this one gets the usual permissions
                yield new
                if path.exists():
                    os.rename(path, old)
                os.rename(new, path)
            finally:
                if old.exists() and not path.exists():
                    os.rename(old, path)
    except OSError as error:
        raise LoopAnimateError(f"cannot write {path}: {error.strerror or error}") from error
