"""Where clips come from: a small protocol, and the sources behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from loopanimate_core.errors import LoopAnimateError

from .config import ClipConfig, DataConfig


class BadClip(LoopAnimateError):
    """One clip cannot be read; the run goes on without it."""


class ClipSource(Protocol):
    """Numbered clips; every method is safe to call from several threads."""

    def __len__(self) -> int: ...

    def key(self, clip_id: int) -> str:
        """Names the clip's content: another file, another version of it or another rendering differs."""
        ...

    def frame_count(self, clip_id: int) -> int: ...

    def caption(self, clip_id: int) -> str: ...

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Frames [n, H, W, 3] uint8 and object masks [n, H, W] bool (None: unknown) at ascending `indices`.

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
    """Clips for sample sheets: the mini's held-out stickers, elsewhere the training clips themselves."""
    return MiniSource(data, clip, "held_out") if data.source == "mini" else training


class FileSource:
    """Videos, or folders of pictures, listed by an index."""

    def __init__(self, data: DataConfig, clip: ClipConfig) -> None:
        from .index import build_index, list_frame_folders, list_videos

        entries = (list_videos if data.source == "videos" else list_frame_folders)(data.path)
        self._clips = build_index(entries[: data.clips], clip.span_frames, data.cache, data.threads)

    def __len__(self) -> int:
        return len(self._clips)

    def key(self, clip_id: int) -> str:
        clip = self._clips[clip_id]
        masks = "" if clip.entry.mask_path is None else str(clip.entry.mask_path)
        return f"{clip.signature} {masks}"

    def frame_count(self, clip_id: int) -> int:
        return self._clips[clip_id].facts.frames

    def caption(self, clip_id: int) -> str:
        return self._clips[clip_id].entry.caption

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        from .index import pictures_in
        from .video import read_video

        clip = self._clips[clip_id]
        path, mask_path = clip.entry.path, clip.entry.mask_path
        if path.is_dir():
            frames = read_pictures(pictures_in(path), indices, "RGB")
        else:
            frames = read_video(path, indices, clip.facts)
        if mask_path is None:
            return frames, None
        return frames, read_pictures(pictures_in(mask_path), indices, "L") > 127


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
        from .mini.clips import MiniClips
        from .mini.emoji import EmojiCache

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
        return f"mini {self._split} {self._size_px} px, seed {self._clips.seed}, {len(self._clips.cache.emoji)} stickers, {clip_id}"

    def frame_count(self, clip_id: int) -> int:
        return self._clips[clip_id].frame_count

    def caption(self, clip_id: int) -> str:
        return self._clips[clip_id].caption

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        return self._clips[clip_id].frames(indices)
