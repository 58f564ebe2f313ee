"""What is evaluated on: pictures, each with its prompt and, where there is one, its mask."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LoopAnimateError
from ..picture.folder import BUNDLED, list_pictures

BUNDLED_LIST = BUNDLED / "prompts.csv"
MASK_ENDING = "_mask"  # `loopanimate mask cat.png` writes cat_mask.png
LIST_SUFFIXES = (".csv", ".jsonl")


@dataclass(frozen=True)
class Case:
    """One picture of the test set.

    Attributes:
        name: the picture's file name without ending; videos from elsewhere are found by it.
        mask: a picture of the same size that is white where things may move; None finds the object.
    """

    name: str
    picture: Path
    prompt: str
    mask: Path | None = None

    def seed(self, base: int) -> int:
        """The seed of this picture, the same for every system and in every test set it is in."""
        return int.from_bytes(hashlib.sha256(f"{base}/{self.name}".encode()).digest()[:4], "big")


def read_cases(source: Path, prompt: str = "", limit: int | None = None) -> list[Case]:
    """Read a test set.

    Args:
        source: a folder, or a list. In a folder, `cat.txt` is the prompt of `cat.png` and `cat_mask.png` its mask.
            A list is a .csv file with the columns picture, prompt and optionally mask, or a .jsonl file with
            the same keys; its paths are relative to its own folder.
        prompt: of pictures without one of their own.
        limit: at most so many pictures, the first ones.

    Raises:
        LoopAnimateError: nothing is there, a file is missing, or two pictures have the same name.
    """
    if limit is not None and limit < 1:
        raise LoopAnimateError(f"the number of pictures must be at least 1, got {limit}")
    if source.is_dir():
        cases = list(_folder_cases(source, prompt))
    elif source.suffix.lower() in LIST_SUFFIXES:
        cases = list(_list_cases(source, prompt))
    else:
        raise LoopAnimateError(
            f"{source} must be a folder of pictures or a list that ends in {' or '.join(LIST_SUFFIXES)}"
        )
    if not cases:
        raise LoopAnimateError(f"there are no pictures in {source}")
    name, count = Counter(case.name for case in cases).most_common(1)[0]
    if count > 1:
        raise LoopAnimateError(f"{source} has {count} pictures named {name}; each needs its own")
    return cases[:limit]


def _folder_cases(folder: Path, prompt: str) -> Iterator[Case]:
    pictures = list_pictures(folder)
    stems = {path.stem: path for path in pictures}
    for path in pictures:
        if path.stem.removesuffix(MASK_ENDING) in stems.keys() - {path.stem}:
            continue  # the mask of another one
        text = path.with_suffix(".txt")
        own = _read_text(text).strip() if text.is_file() else prompt
        yield Case(path.stem, path, own, stems.get(path.stem + MASK_ENDING))


def _list_cases(path: Path, prompt: str) -> Iterator[Case]:
    rows = _csv_rows if path.suffix.lower() == ".csv" else _jsonl_rows
    for line, row in rows(path, _read_text(path)):
        picture, mask = row.get("picture"), row.get("mask") or None
        words = row.get("prompt") or prompt
        if not (picture and isinstance(picture, str) and isinstance(words, str)):
            raise LoopAnimateError(
                f"line {line} of {path} must have a picture, and may have a prompt and a mask"
            )
        found = path.parent / picture
        wanted = [found] if mask is None else [found, path.parent / str(mask)]
        for file in wanted:
            if not file.is_file():
                raise LoopAnimateError(f"line {line} of {path}: there is no file {file}")
        yield Case(found.stem, found, words, None if mask is None else path.parent / str(mask))


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text))
    if "picture" not in (reader.fieldnames or ()):
        raise LoopAnimateError(
            f"the first line of {path} must name the columns picture, prompt and, if there are masks, mask"
        )
    for row in reader:
        yield reader.line_num, row


def _jsonl_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LoopAnimateError(f"line {number} of {path} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise LoopAnimateError(f"line {number} of {path} must be a JSON object")
        yield number, row


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LoopAnimateError(f"cannot read {path}: {error}") from error
