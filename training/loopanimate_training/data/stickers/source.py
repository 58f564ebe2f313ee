"""Drawn stickers as a source of training clips (`data.source: mini`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from loopanimate_core.errors import LoopAnimateError

from ...config import ClipConfig, DataConfig
from ..photographs.cutouts import CutoutCache
from .clips import DrawnClips
from .emoji import EmojiCache

CUTOUTS_FOLDER = "cutouts"  # in the folder of the sticker cache


class StickerSource:
    """A `ClipSource` of the first `data.clips` drawn clips of a split, drawn on demand.

    Raises:
        LoopAnimateError: a setting that does not fit these clips.
    """

    def __init__(self, data: DataConfig, clip: ClipConfig, split: str = "train") -> None:
        if clip.fps is not None:
            raise LoopAnimateError(
                f"clip.fps is {clip.fps:g}, but clips of the source `mini` have no frame rate; remove it"
            )
        if data.clips is None:
            raise LoopAnimateError(
                "data.clips is not set; the source `mini` is endless and needs a number of clips"
            )
        folder = data.path / CUTOUTS_FOLDER
        cutouts = CutoutCache(folder) if folder.is_dir() else None
        cache = EmojiCache(data.path)
        self._clips = DrawnClips(cache, split, clip.height_px, clip.width_px, cutouts=cutouts)
        self._count, self._split = data.clips, split

    def __len__(self) -> int:
        return self._count

    def key(self, clip_id: int) -> str:
        clips = self._clips
        content = clips.cache.content + (clips.cutouts.content if clips.cutouts else "")
        size = f"{clips.width_px} x {clips.height_px} px"
        return f"drawn {self._split} {size}, seed {clips.seed}, {content}, {clip_id}"

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.key(0)} of {len(self)}".encode()).hexdigest()[:16]

    def name(self, clip_id: int) -> str:
        return f"drawn clip {clip_id} ({self._clips[clip_id].caption})"

    def frame_count(self, clip_id: int) -> int:
        return self._clips[clip_id].frame_count

    def caption(self, clip_id: int) -> str:
        return self._clips[clip_id].caption

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        frames, masks = self._clips[clip_id].frames(indices)
        return frames, masks[[0, -1]]
