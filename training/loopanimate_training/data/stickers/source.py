"""Drawn stickers as a source of training clips (`data.source: mini`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.shapes import Shape

from ...config import ClipConfig, DataConfig
from ...rng import key_hash
from .clips import StickerClips
from .emoji import EmojiCache


class StickerSource:
    """A `ClipSource` of the first `data.clips` sticker clips of a split, drawn on demand.

    Each of the run's shapes has an equal share of the clips, chosen by a hash of the clip's number.

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
        for shape in clip.all_shapes:
            if shape.height_px != shape.width_px:
                raise LoopAnimateError(
                    "clips of the source `mini` are square: width and height must be equal, "
                    f"got {shape}"
                )
        self._clips = StickerClips(EmojiCache(data.path), split, size_px=clip.height_px)
        self._count, self._size_px, self._split = data.clips, clip.height_px, split
        self._shapes = clip.all_shapes

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

    def shape(self, clip_id: int) -> Shape:
        return self._shapes[key_hash("shape", clip_id) % len(self._shapes)]

    def caption(self, clip_id: int) -> str:
        return self._clips[clip_id].caption

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        frames, masks = self._clips[clip_id].frames(indices)
        return frames, masks[[0, -1]]
