"""Loops and figures that are finished: files named by a hash of everything that decides them.

`made/KEY.mkv` holds the frames of a loop without loss, `made/KEY.json` what was measured. Whoever changes a
picture, a prompt, a model or a setting gets another key, so nothing stale is ever read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import LoopAnimateError
from ..files import atomic_write, make_folder
from ..video import read_video, write_video
from ..video.frame_source import FrameSource

FOLDER = "made"


@dataclass(frozen=True)
class Clip:
    """The frames that play, `[P, H, W, 3]` in 0..1."""

    frames: Tensor
    fps: float


class Store:
    """The folder of finished loops and figures inside an evaluation's folder."""

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER
        make_folder(self.folder)

    def clip(self, key: str) -> Clip | None:
        """A finished loop; None if there is none, or its file is damaged."""
        path = self.folder / f"{key}.mkv"
        if not path.is_file():
            return None
        try:
            return Clip(*read_video(path))
        except LoopAnimateError:
            return None

    def keep_clip(self, key: str, frames: FrameSource, fps: float) -> Clip:
        """Store a loop and return it as the file has it, so that a later run measures the same numbers."""
        path = self.folder / f"{key}.mkv"
        write_video(frames, path, fps=fps, format="ffv1")
        return Clip(*read_video(path))

    def figures(self, key: str) -> dict[str, Any] | None:
        """What was measured under this key; None if nothing was."""
        try:
            found = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def keep_figures(self, key: str, figures: Mapping[str, Any]) -> None:
        write_json(self.folder / f"{key}.json", figures)


def key_of(values: Mapping[str, Any]) -> str:
    """A short hash of plain values."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def file_hash(path: Path) -> str:
    """A hash of what a file, or all files directly in a folder, contain.

    Raises:
        LoopAnimateError: it cannot be read.
    """
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    try:
        for file in files:
            with file.open("rb") as opened:
                while piece := opened.read(1 << 20):
                    total.update(piece)
    except OSError as error:
        raise LoopAnimateError(f"cannot read {path}: {error.strerror or error}") from error
    return total.hexdigest()


def write_json(path: Path, content: Any) -> Path:
    """Write plain values as JSON, completely or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(
            json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n", "utf-8"
        )
    return path
