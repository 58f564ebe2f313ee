"""Tars in the layout of webdataset: `key.mp4`, `key.txt` or `key.json`, and `key.mask.mp4`, side by side.

Members are read inside the tar: nothing is unpacked, and every clip can be read at random.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath

from .folders import MAX_CAPTION_BYTES, caption_from
from .rows import BAD_TAR, NOT_A_TAR, VIDEO_SUFFIXES, Blob, Row, RowProblem, file_state

_BLOCK = 512


@dataclass
class _Member:
    key: str
    suffix: str  # everything from the first dot on, as in webdataset
    blob: Blob
    text: bytes = b""


@dataclass(frozen=True)
class TarReader:
    """The tars of a data set, sorted by name."""

    tars: tuple[Path, ...]
    name: str = field(default="webdataset tars")

    def state(self) -> Iterator[str]:
        return (file_state(path) for path in self.tars)

    def rows(self) -> Iterator[Row]:
        for path in self.tars:
            yield from _tar_rows(path)


def _tar_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for key, members in groupby(_members(path, tar), lambda member: member.key):
                yield from _clip(f"{path.stem}/{key}", list(members))
    except _Damaged:
        yield Row(path.name, Blob(path), reason=BAD_TAR)
    except (tarfile.TarError, OSError):
        yield Row(path.name, Blob(path), reason=NOT_A_TAR)


class _Damaged(Exception):
    """The tar is damaged from here on."""


def _members(path: Path, tar: tarfile.TarFile) -> Iterator[_Member]:
    """The files of a tar, captions with their text; raises `_Damaged` where the tar is damaged."""
    length, end = path.stat().st_size, 0
    members = iter(tar)
    while True:
        try:
            member = next(members, None)
        except (tarfile.TarError, OSError) as error:
            if end == 0:
                raise
            raise _Damaged from error
        if member is None:
            break
        end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
        if member.offset_data + member.size > length:
            raise _Damaged
        if not member.isreg() or member.issparse():
            end = max(end, tar.offset)
            continue
        name = PurePosixPath(member.name)
        stem, dot, rest = name.name.partition(".")
        suffix = (dot + rest).lower()
        found = _Member(
            str(name.parent / stem), suffix, Blob(path, member.offset_data, member.size)
        )
        if suffix in (".txt", ".json") and member.size <= MAX_CAPTION_BYTES:
            file = tar.extractfile(member)
            found.text = file.read() if file else b""
        yield found
    # tarfile takes a damaged header for the end. The true end is a block of zeros, or the end of the file.
    with path.open("rb") as file:
        file.seek(end)
        if any(file.read(_BLOCK)):
            raise _Damaged


def _clip(name: str, members: Sequence[_Member]) -> Iterator[Row]:
    by_suffix = {member.suffix: member for member in members}
    video = next((by_suffix[s] for s in VIDEO_SUFFIXES if s in by_suffix), None)
    if video is None:
        return
    masks = next((by_suffix[f".mask{s}"] for s in VIDEO_SUFFIXES if f".mask{s}" in by_suffix), None)
    try:
        captions = (caption_from(s, by_suffix[s].text) for s in (".txt", ".json") if s in by_suffix)
        yield Row(name, video.blob, next(captions, ""), masks.blob if masks else None)
    except RowProblem as problem:
        yield Row(name, video.blob, reason=str(problem))
