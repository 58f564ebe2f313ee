"""Where clips come from: a small protocol, and the sources behind it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from loopanimate_core.errors import LoopAnimateError

from ..config import ClipConfig, DataConfig
from .bad_clip import BadClip

__all__ = [
    "BadClip",
    "ClipSource",
    "FileSource",
    "MiniSource",
    "open_source",
    "open_validation_source",
]

_log = logging.getLogger(__name__)


class ClipSource(Protocol):
    """Numbered clips; every method is safe to call from several threads."""

    def __len__(self) -> int: ...

    def key(self, clip_id: int) -> str:
        """Names the clip's content: another file, another version of it or another rendering differs."""
        ...

    def fingerprint(self) -> str:
        """A hash of all clips and captions in their order: what a run is drawn from."""
        ...

    def name(self, clip_id: int) -> str:
        """Tells people which clip it is."""
        ...

    def frame_count(self, clip_id: int) -> int: ...

    def caption(self, clip_id: int) -> str: ...

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Frames [n, H, W, 3] uint8 at ascending `indices`, and object masks [2, H, W] bool of the first and
        the last of them (None: unknown).

        Raises:
            BadClip: the clip cannot be read.
        """
        ...


def open_source(data: DataConfig, clip: ClipConfig) -> ClipSource:
    """The source that `data` describes, without the clips too short for `clip`.

    Raises:
        LoopAnimateError: nothing usable is there; the message says how many clips failed and why.
    """
    if data.source == "mini":
        return MiniSource(data, clip)
    return FileSource(data, clip)


def open_validation_source(data: DataConfig, clip: ClipConfig, training: ClipSource) -> ClipSource:
    """Clips for sample sheets, never trained on: the held-out share of files, the mini's held-out stickers.

    Without a held-out share (or with too few clips for one) the training clips themselves.
    """
    if isinstance(training, FileSource):
        held_out = training.held_out()
        return held_out if len(held_out) else training
    return MiniSource(data, clip, "held_out")


class FileSource:
    """Videos, or folders of pictures, listed by an index."""

    def __init__(self, data: DataConfig, clip: ClipConfig) -> None:
        from .index import open_index, usable_rows

        self._table = open_index(data)
        self._rows, self._held_out, self._frames = usable_rows(self._table, data, clip)
        self._fps, self._with_masks = clip.fps, clip.mask == "object"
        if data.held_out_share and not len(self._held_out):
            _log.warning(
                "no clip falls into data.held_out_share = %g: sheets show training clips",
                data.held_out_share,
            )

    def held_out(self) -> FileSource:
        """The clips that are kept for validation."""
        other = copy(self)
        other._rows, other._held_out = self._held_out, self._rows[:0]
        return other

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, clip_id: int) -> str:
        rate = "" if self._fps is None else f" {self._fps:g} fps"
        return self._table.content(self._rows[clip_id]) + rate

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for clip_id in range(len(self)):
            digest.update(f"{self.key(clip_id)}\0{self.caption(clip_id)}\0".encode())
        return digest.hexdigest()[:16]

    def name(self, clip_id: int) -> str:
        name, path, _, _ = self._table.text(int(self._rows[clip_id]))
        return f"{name} ({path})"

    def frame_count(self, clip_id: int) -> int:
        return int(self._frames[self._rows[clip_id]])

    def caption(self, clip_id: int) -> str:
        return self._table.text(self._rows[clip_id])[2]

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        from .index import stat_of
        from .readers.rows import pictures_in
        from .video import read_numbered, read_video, source_frames

        number = int(self._rows[clip_id])
        row, facts = self._table.row(number), self._table.facts(number)
        try:
            if stat_of(row.media) != self._table.stat(number):
                raise BadClip(f"{row.media.path} has changed since it was indexed")
            numbers = source_frames(facts, indices, self._fps).tolist()
            if row.media.path.is_dir():
                frames = read_pictures(pictures_in(row.media.path), numbers, "RGB")
            else:
                frames = read_video(row.media, numbers, facts)
            if row.masks is None or not self._with_masks:
                return frames, None
            ends = [numbers[0], numbers[-1]]
            if row.masks.path.is_dir():
                masks = read_pictures(pictures_in(row.masks.path), ends, "L")
            else:
                masks = read_numbered(row.masks, ends, "gray")
        except OSError as error:
            raise BadClip(f"{row.media.path} cannot be read ({error})") from error
        if masks.shape[1:] != frames.shape[1:3]:
            raise BadClip(f"the masks of {row.media.path} have another size than its frames")
        return frames, masks > 127


def read_pictures(paths: Sequence[Path], indices: Sequence[int], mode: str) -> np.ndarray:
    """Pictures `indices` of a folder, [n, H, W, 3] (mode RGB) or [n, H, W] (mode L) uint8.

    Raises:
        BadClip: one is missing, damaged or of another size than the first.
    """
    pictures = []
    for index in indices:
        try:
            with Image.open(paths[index]) as picture:
                pictures.append(np.asarray(picture.convert(mode)))
        except (OSError, ValueError, IndexError) as error:
            raise BadClip(f"picture {index} of {len(paths)} cannot be read ({error})") from error
        if pictures[-1].shape != pictures[0].shape:
            raise BadClip(f"{paths[index]} has another size than the pictures before it")
    return np.stack(pictures)


class MiniSource:
    """Procedural stickers of the mini model, drawn on demand."""

    def __init__(self, data: DataConfig, clip: ClipConfig, split: str = "train") -> None:
        from .stickers.clips import MiniClips
        from .stickers.emoji import EmojiCache

        if clip.fps is not None:
            raise LoopAnimateError(
                f"clip.fps is {clip.fps:g}, but the stickers of the mini have no frame rate; leave it out"
            )
        if data.clips is None:
            raise LoopAnimateError(
                "the source `mini` is endless; say how many clips with data.clips"
            )
        if clip.height_px != clip.width_px:
            raise LoopAnimateError(
                f"mini clips are square, not {clip.width_px} x {clip.height_px} pixels"
            )
        self._clips = MiniClips(EmojiCache(data.path), split, size_px=clip.height_px)
        self._count, self._size_px, self._split = data.clips, clip.height_px, split

    def __len__(self) -> int:
        return self._count

    def key(self, clip_id: int) -> str:
        stickers = self._clips.cache.content
        return f"mini {self._split} {self._size_px} px, seed {self._clips.seed}, stickers {stickers}, {clip_id}"

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.key(0)} of {len(self)}".encode()).hexdigest()[:16]

    def name(self, clip_id: int) -> str:
        return f"sticker clip {clip_id} ({self._clips[clip_id].caption})"

    def frame_count(self, clip_id: int) -> int:
        return self._clips[clip_id].frame_count

    def caption(self, clip_id: int) -> str:
        return self._clips[clip_id].caption

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        frames, masks = self._clips[clip_id].frames(indices)
        return frames, masks[[0, -1]]
