"""Folders: videos with captions beside them, and folders of pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loopanimate_core.parsing import MalformedError, parse_json

from ...remote import walk as walk_folder
from .rows import (
    BAD_ROW,
    FOLDER_UNREADABLE,
    NOT_UTF8,
    VIDEO_SUFFIXES,
    Blob,
    Row,
    RowProblem,
    checked_text,
    file_state,
)

MASK_FOLDER = ".masks"  # a.masks/ holds the masks of a.mp4, or of a/
MASK_VIDEO = ".mask"  # a.mask.mp4 holds them as a video
MAX_CAPTION_BYTES = 1 << 20


@dataclass(frozen=True)
class VideoFolder:
    """All videos below a folder; the caption of `a.mp4` is in `a.txt`, or under `caption` in `a.json`."""

    folder: Path
    name: str = "folder of videos"

    def state(self) -> Iterator[str]:
        return folder_state(self.folder)

    def rows(self) -> Iterator[Row]:
        unreadable: list[Path] = []
        for path in walk(self.folder, unreadable, without=MASK_FOLDER):
            if path.suffix.lower() in VIDEO_SUFFIXES and not path.stem.endswith(MASK_VIDEO):
                name = path.relative_to(self.folder).with_suffix("").as_posix()
                yield _captioned(name, path, path.with_suffix(""))
        for path in unreadable:  # counted with the skipped clips
            name = path.relative_to(self.folder).as_posix()
            yield Row(name, Blob(path), reason=FOLDER_UNREADABLE)


@dataclass(frozen=True)
class FrameFolders:
    """A folder of folders of pictures; the caption of `name/` is in `name.txt` or `name.json`."""

    folder: Path
    name: str = "folder of frame folders"

    def state(self) -> Iterator[str]:
        return folder_state(self.folder)

    def rows(self) -> Iterator[Row]:
        for path in sorted(self.folder.iterdir()):
            if path.is_dir() and path.suffix != MASK_FOLDER:
                yield _captioned(path.name, path, path)


def folder_state(folder: Path) -> Iterator[str]:
    """The states of all files below a folder, including masks, and the folders that cannot be read."""
    unreadable: list[Path] = []
    yield from map(file_state, walk(folder, unreadable))
    yield from (f"{path} unreadable" for path in unreadable)


def walk(folder: Path, unreadable: list[Path], without: str | None = None) -> Iterator[Path]:
    """All files below a folder in a fixed order; folders that cannot be read are added to `unreadable`.

    Args:
        without: skip folders whose names end with this.
    """

    def note(error: OSError) -> None:
        unreadable.append(Path(error.filename))

    for place, folders, files in walk_folder(folder, note):
        folders[:] = sorted(n for n in folders if without is None or not n.endswith(without))
        yield from (place / name for name in sorted(files))


def find_masks(stem: Path) -> Blob | None:
    """The masks beside a clip; `stem` is the clip's path without suffix."""
    folder = stem.parent / (stem.name + MASK_FOLDER)
    if folder.is_dir():
        return Blob(folder)
    videos = (stem.parent / (stem.name + MASK_VIDEO + suffix) for suffix in VIDEO_SUFFIXES)
    return next((Blob(path) for path in videos if path.is_file()), None)


def masks_in(folder: Path, name: str) -> Blob | None:
    """The masks of the clip `name` in a folder of masks: `name/` or a video such as `name.mp4`."""
    if name.startswith("/") or ".." in Path(name).parts:
        return None
    stem = folder / name
    if stem.is_dir():
        return Blob(stem)
    videos = (stem.parent / (stem.name + suffix) for suffix in VIDEO_SUFFIXES)
    return next((Blob(path) for path in videos if path.is_file()), find_masks(stem))


def caption_from(suffix: str, data: bytes) -> str:
    """The caption in a .txt, or under `caption`, `text` or `prompt` in a .json.

    Raises:
        RowProblem: it is longer than a megabyte, the text is not UTF-8, or the .json is not valid.
    """
    if len(data) > MAX_CAPTION_BYTES:
        raise RowProblem(BAD_ROW)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RowProblem(NOT_UTF8) from error
    if suffix != ".json":
        return checked_text(text)
    try:
        values = parse_json(text, "a caption", finite=False)
    except MalformedError as error:
        raise RowProblem(BAD_ROW) from error
    if not isinstance(values, dict):
        raise RowProblem(BAD_ROW)
    found = (values.get(key) for key in ("caption", "text", "prompt"))
    return checked_text(next((value for value in found if isinstance(value, str)), ""))


def _captioned(name: str, media: Path, stem: Path) -> Row:
    masks = find_masks(stem)
    try:
        for suffix in (".txt", ".json"):
            file = stem.parent / (stem.name + suffix)
            if file.is_file():
                with file.open("rb") as source:
                    data = source.read(MAX_CAPTION_BYTES + 1)
                return Row(name, Blob(media), caption_from(suffix, data), masks)
    except RowProblem as problem:
        return Row(name, Blob(media), masks=masks, reason=str(problem))
    except OSError:
        return Row(name, Blob(media), masks=masks, reason=BAD_ROW)
    return Row(name, Blob(media), masks=masks)
