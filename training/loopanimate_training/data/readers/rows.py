"""Rows, which readers yield, and the rules that all readers share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loopanimate_core.parsing import is_text

from ...remote import RemotePath, data_path, is_url

VIDEO_SUFFIXES = (
    ".mp4",
    ".webm",
    ".mkv",
    ".mov",
    ".avi",
    ".m4v",
    ".gif",
    ".mpg",
    ".mpeg",
    ".ogv",
    ".wmv",
    ".flv",
)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

# Reasons to skip a row, as printed. Those that need the file are in `index/`.
OUTSIDE = "outside the data folder (data.outside: allow)"
NOT_UTF8 = "caption is not UTF-8"
BAD_ROW = "row of the table cannot be read"
BAD_TAR = "tar damaged from here on"
NOT_A_TAR = "tar cannot be read"
FOLDER_UNREADABLE = "folder cannot be read"

MAX_CAPTION = 10_000  # characters


@dataclass(frozen=True)
class Blob:
    """A file or a folder of pictures, or `size` bytes of a file from `offset` (a member of a tar)."""

    path: Path
    offset: int = 0
    size: int = -1  # all of it


@dataclass(frozen=True)
class Row:
    """A clip as the data set lists it.

    Attributes:
        id: the clip's name in the data set.
        masks: object masks: a folder of pictures or a video, one picture per frame of the clip.
        start_s, end_s: the part of the video that the clip covers; None: from the start, to the end.
        reason: why the clip cannot be used; empty as far as its reader can tell.
    """

    id: str
    media: Blob
    caption: str = ""
    masks: Blob | None = None
    start_s: float | None = None
    end_s: float | None = None
    reason: str = ""


class Reader(Protocol):
    """A data set on disk."""

    @property
    def name(self) -> str:
        """The kind of data set, for messages."""
        ...

    def state(self) -> Iterator[str]:
        """Strings that change when rows may have been added, removed or changed."""
        ...

    def rows(self) -> Iterator[Row]:
        """All clips, always in the same order."""
        ...


class RowProblem(Exception):
    """One row cannot be used; the message is the reason."""


@dataclass(frozen=True)
class PathRule:
    """How the paths in a table become files: relative to `root`, and below it unless `allow_outside`.

    Otherwise a downloaded table could name any file of the machine.
    """

    root: Path
    allow_outside: bool = False

    def resolve(self, text: str) -> Path:
        """The file that a row names.

        Raises:
            RowProblem: the path is empty, or leads outside the root.
        """
        if not text or "\0" in text:
            raise RowProblem(BAD_ROW)
        root = self.root
        if is_url(text):
            path = data_path(text)
        elif isinstance(root, RemotePath):
            path = data_path(root / text.lstrip("/"))
        else:
            root = Path(os.path.normpath(root))
            path = Path(os.path.normpath(root / text))
        # Symbolic links below the root were made by the owner of the data, and are followed.
        if not self.allow_outside and not path.is_relative_to(root):
            raise RowProblem(OUTSIDE)
        return path

    def first(self, candidates: Sequence[str]) -> Path:
        """The first of several possible paths that exists, or the first if none does."""
        paths = [self.resolve(text) for text in candidates]
        return next((path for path in paths if path.exists()), paths[0])


def checked_text(text: str) -> str:
    """A caption with white space at the ends removed and runs of it replaced by one space.

    Only its first 10,000 characters count: the text encoder reads 77 tokens.

    Raises:
        RowProblem: it is not UTF-8 (readers open files with `errors="surrogateescape"`).
    """
    if not is_text(text):
        raise RowProblem(NOT_UTF8)
    return " ".join(text[:MAX_CAPTION].split())


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)


def file_state(path: Path) -> str:
    """Path, size and modification time of a file, or that it is missing."""
    try:
        stat = path.stat()
    except OSError:
        return f"{path} missing"
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"
