"""Where clips come from: a small protocol, and the video files behind it. The drawn ones are in `stickers/`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from copy import copy
from typing import Protocol

import numpy as np

from loopanimate_core.picture.shapes import Shape, nearest_shape

from ..config import ClipConfig, DataConfig
from .index.build import open_index
from .index.earlier import stat_of
from .index.selection import HELD_OUT, require_clips, select
from .loops import spread
from .readers.rows import Blob, Row, pictures_in
from .video.bad_clip import BadClip
from .video.facts import VideoFacts, source_frames
from .video.frames import read_counted, read_pictures, read_video

_log = logging.getLogger(__name__)


class ClipSource(Protocol):
    """Numbered clips. Every method is safe to call from several threads."""

    def __len__(self) -> int: ...

    def key(self, clip_id: int) -> str:
        """Identifies the clip's content: another file, version or rendering has another key."""
        ...

    def fingerprint(self) -> str:
        """A hash of all clips and captions in their order."""
        ...

    def name(self, clip_id: int) -> str:
        """A name of the clip for messages."""
        ...

    def frame_count(self, clip_id: int) -> int: ...

    def shape(self, clip_id: int) -> Shape:
        """The run's shape that the clip is trained at. Frames may have another size; they are cropped to it."""
        ...

    def caption(self, clip_id: int) -> str: ...

    @property
    def lacks_masks(self) -> bool:
        """Whether any clip has no masks, so that its object has to be found."""
        ...

    def has_masks(self, clip_id: int) -> bool:
        """Whether `read` gives masks of the clip."""
        ...

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Frames [n, H, W, 3] uint8 at ascending `indices`, and object masks [2, H, W] bool of the first of them
        and of the turning frame, or the last if that is not among them (None: the clip has no masks).

        Raises:
            BadClip: the clip cannot be read.
        """
        ...


class FileSource:
    """Videos, or folders of pictures, listed by an index."""

    def __init__(self, data: DataConfig, clip: ClipConfig) -> None:
        self._table = open_index(data)
        selection = select(self._table, data, clip)
        require_clips(selection, data.path)
        self._rows, self._held_out = selection.rows(), selection.rows(HELD_OUT)
        self._frames = selection.frames
        self._clip, self._fps, self._with_masks = clip, clip.fps, clip.mask == "object"
        self._shapes = clip.all_shapes
        if data.held_out_share and not len(self._held_out):
            _log.warning(
                "data.held_out_share = %g holds out no clip of %s", data.held_out_share, data.path
            )

    def held_out(self) -> FileSource:
        """The clips that are kept for validation."""
        other = copy(self)
        other._rows, other._held_out = self._held_out, self._rows[:0]
        return other

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, clip_id: int) -> str:
        return self._table.content(self._rows[clip_id]) + self._rate

    @property
    def _rate(self) -> str:
        rate = "" if self._fps is None else f" {self._fps:g} fps"
        return f"{rate} natural loop" if self._clip.loops else rate

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for content, caption in self._table.contents_and_captions(self._rows):
            digest.update(f"{content}{self._rate}\0".encode() + caption + b"\0")
        return digest.hexdigest()[:16]

    def name(self, clip_id: int) -> str:
        name, path, _, _ = self._table.text(int(self._rows[clip_id]))
        return f"{name} ({path})"

    def frame_count(self, clip_id: int) -> int:
        if self._clip.loops:  # numbered by the frames of training
            return self._clip.span_frames
        return int(self._frames[self._rows[clip_id]])

    def shape(self, clip_id: int) -> Shape:
        row = self._rows[clip_id]
        height_px, width_px = (int(self._table.column(f"{s}_px")[row]) for s in ("height", "width"))
        return nearest_shape(self._shapes, height_px, width_px)

    def caption(self, clip_id: int) -> str:
        return self._table.text(self._rows[clip_id])[2]

    @property
    def lacks_masks(self) -> bool:
        lengths = self._table.column("lengths")[self._rows, 3]
        return not self._with_masks or bool((lengths == 0).any())

    def has_masks(self, clip_id: int) -> bool:
        return self._with_masks and bool(self._table.column("lengths")[self._rows[clip_id], 3])

    def read(self, clip_id: int, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        number = int(self._rows[clip_id])
        row, facts = self._table.row(number), self._table.facts(number)
        try:
            if stat_of(row.media) != self._table.stat(number):
                raise BadClip(f"{row.media.path} has changed since it was indexed")
            turn = self._clip.turn if self._clip.turn in indices else indices[-1]
            numbers = self._numbers(number, facts, indices)
            frames = read_frames(row, numbers, facts)
            if row.masks is None or not self._with_masks:
                return frames, None
            masks = read_masks(row.masks, self._numbers(number, facts, [indices[0], turn]))
        except OSError as error:
            raise BadClip(f"{row.media.path} cannot be read ({error})") from error
        if masks.shape[1:] != frames.shape[1:3]:
            raise BadClip(f"the masks of {row.media.path} differ in size from its frames")
        return frames, masks > 127

    def _numbers(self, row: int, facts: VideoFacts, indices: Sequence[int]) -> list[int]:
        """Which decoded frames of a row's clip the frames `indices` are."""
        if self._clip.loops:
            indices = spread(indices, int(self._frames[row]), self._clip.span_frames)
        return source_frames(facts, indices, self._fps).tolist()


def read_frames(row: Row, numbers: Sequence[int], facts: VideoFacts) -> np.ndarray:
    """Decoded frames `numbers` of a clip, [n, H, W, 3] uint8.

    Raises:
        BadClip: they cannot be read.
    """
    if row.media.path.is_dir():
        return read_pictures(pictures_in(row.media.path), numbers, "RGB")
    return read_video(row.media, numbers, facts)


def read_masks(masks: Blob, numbers: Sequence[int]) -> np.ndarray:
    """The pictures `numbers` of a clip's masks, [n, H, W] uint8.

    Raises:
        BadClip: they cannot be read.
    """
    if masks.path.is_dir():
        return read_pictures(pictures_in(masks.path), numbers, "L")
    return read_counted(masks, numbers, "gray")
