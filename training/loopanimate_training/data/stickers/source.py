"""Drawn clips as a source of training clips (`data.source: mini`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.shapes import Shape

from ...config import ClipConfig, DataConfig
from ...rng import key_hash
from ..photographs.cutouts import CutoutCache
from .clips import DrawnClip, DrawnClips
from .emoji import EmojiCache

CUTOUTS_FOLDER = "cutouts"  # in the folder of the sticker cache


class StickerSource:
    """A `ClipSource` of the first `data.clips` drawn clips of a split, drawn on demand.

    Each of the run's shapes has an equal share of the clips, chosen by a hash of the clip's number.

    Raises:
        LoopAnimateError: a setting that does not fit these clips.
    """

    def __init__(self, data: DataConfig, clip: ClipConfig, split: str = "train") -> None:
        if clip.fps is not None:
            raise LoopAnimateError(
                f"clip.fps is {clip.fps:g}, but clips of the source `mini` have no frame rate; remove it"
            )
        if clip.loops:
            raise LoopAnimateError(
                "clip.loops is true, but clips of the source `mini` are not loops; remove it"
            )
        if data.clips is None:
            raise LoopAnimateError(
                "data.clips is not set; the source `mini` is endless and needs a number of clips"
            )
        folder = data.path / CUTOUTS_FOLDER
        cutouts = CutoutCache(folder) if folder.is_dir() else None
        cache = EmojiCache(data.path)
        self._shapes, self._count, self._split = clip.all_shapes, data.clips, split
        self._clips = {
            shape: DrawnClips(cache, split, shape.height_px, shape.width_px, cutouts=cutouts)
            for shape in self._shapes
        }
        self._content = cache.content + (cutouts.content if cutouts else "")

    def __len__(self) -> int:
        return self._count

    def key(self, clip_id: int) -> str:
        shape = self.shape(clip_id)
        seed = self._clips[shape].seed
        return f"drawn {self._split} {shape}, seed {seed}, {self._content}, {clip_id}"

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.key(0)} of {len(self)}".encode()).hexdigest()[:16]

    def name(self, clip_id: int) -> str:
        return f"drawn clip {clip_id} ({self.caption(clip_id)})"

    def frame_count(self, clip_id: int) -> int:
        return self._clip(clip_id).frame_count

    def shape(self, clip_id: int) -> Shape:
        return self._shapes[key_hash("shape", clip_id) % len(self._shapes)]

    def caption(self, clip_id: int) -> str:
        return self._clip(clip_id).caption

    @property
    def lacks_masks(self) -> bool:
        return False

    def has_masks(self, clip_id: int) -> bool:
        return True

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        frames, masks = self._clip(clip_id).frames(indices)
        return frames, masks[[0, -1]]

    def _clip(self, clip_id: int) -> DrawnClip:
        return self._clips[self.shape(clip_id)][clip_id]
