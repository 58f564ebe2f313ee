"""Encoded clips and captions, kept in a folder.

There is one file per window of a clip, named by a hash of all that decides its content (the source clip, the
start, the frames, the size, the weights of the encoders), and one per caption, named by a hash of its tokens
and the text encoder's weights. Masks of objects that had to be found are in files of their own, whose names
include a hash of what found them: with another `data.saliency` only these are made again. So runs can share a
cache, several processes can fill it, and a file never belongs to another clip or model.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from loopanimate_core.encoders.vae import pixels_per_latent
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write
from loopanimate_core.picture.shapes import Shape

from ..rng import key_hash
from .clip_encoder import ClipEncoder, EncodedClip
from .loops import possible_frames
from .source import ClipSource

CACHE_VERSION = 1

_log = logging.getLogger(__name__)


class LatentCache:
    """Encoded windows with `get(clip_id, start)` and captions with `text(caption)`: read from the folder, or
    encoded and written to it.

    When as many windows in a row as there are clips were read from the folder, the encoders are offloaded
    until one is missing.

    Args:
        folder: None: encode every time.
        must_write: raise an error when the disk is full. Otherwise log a warning and continue without
            writing.

    Attributes:
        keeps_masks: use the masks that are in the windows' files, whatever found them. Runs of versions that
            did not note it resume like that.
    """

    def __init__(
        self,
        source: ClipSource,
        encoder: ClipEncoder,
        folder: Path | None,
        must_write: bool = False,
    ) -> None:
        if folder is not None and folder.exists() and not folder.is_dir():
            raise LoopAnimateError(f"data.cache must be a folder, but {folder} is a file")
        self.source, self.encoder, self.folder = source, encoder, folder
        self.must_write, self._hits_in_a_row = must_write, 0
        self.keeps_masks = False
        self._lock = threading.Lock()  # guards the count of hits
        self._offsets = possible_frames(encoder.config)

    @property
    def window_frames(self) -> int:
        """Number of frames of a window in the cache."""
        return len(self._offsets)

    def start_of(self, clip_id: int, window: int) -> int:
        """First source frame of one of the clip's `starts_per_clip` windows: 0 for the first, the others drawn
        from the clip's key. Without that setting there is a window at every frame."""
        room = self.source.frame_count(clip_id) - self.encoder.config.span_frames
        starts = self.encoder.config.starts_per_clip
        if starts is None:
            return window % (room + 1)
        window %= starts
        return 0 if window == 0 else key_hash(self.source.key(clip_id), window) % (room + 1)

    def get(
        self,
        clip_id: int,
        start: int,
        loop: Sequence[int] | None = None,
        shape: Shape | None = None,
    ) -> EncodedClip:
        """The window at `start`. Without a folder, only the offsets in `loop` are read and encoded.

        Args:
            shape: None: the clip's own.
        """
        shape = shape or self.source.shape(clip_id)
        if self.folder is None:
            return self._encode(clip_id, start, sorted(set(loop)) if loop else self._offsets, shape)
        path = self.path_of(clip_id, start, shape)
        tensors = self._read(path)
        if tensors is None:
            clip = self._encode(clip_id, start, self._offsets, shape)
            self._write(
                path,
                {"latents": clip.latents, "masks": clip.masks, "image_embeds": clip.image_embeds},
            )
            if masks_path := self.masks_path_of(clip_id, start, shape):
                self._write(masks_path, {"masks": clip.masks})
            return clip
        with self._lock:
            self._hits_in_a_row += 1
            complete = self._hits_in_a_row >= len(self.source)
        if complete:  # every time, because the encoders may have been in use the time before
            self.encoder.offload()
        masks = self._found_masks(clip_id, start, shape)
        return EncodedClip(
            self._offsets,
            tensors["latents"],
            tensors["masks"] if masks is None else masks,
            tensors["image_embeds"],
        )

    def text(self, caption: str) -> Tensor:
        """A caption for the network: states `[T, D]`, or tokens `[T]` if the text encoder is trained."""
        tokens = self.encoder.tokens(caption)
        if self.encoder.text_encoder is None:
            return tokens
        path = self._text_path(tokens)
        if path is None:
            return self.encoder.text_states(tokens).float()
        tensors = self._read(path)
        if tensors is None:
            tensors = {"text_states": self.encoder.text_states(tokens)}
            self._write(path, tensors)
        return tensors["text_states"].float()

    def path_of(self, clip_id: int, start: int, shape: Shape | None = None) -> Path:
        """The file of a window; at the clip's own shape, if `shape` is None."""
        width_px, height_px = shape or self.source.shape(clip_id)
        return self._path(
            CACHE_VERSION,
            self.source.key(clip_id),
            start,
            self._offsets,
            height_px,
            width_px,
            self.encoder.config.mask,
            self.encoder.fingerprint,
        )

    def masks_path_of(self, clip_id: int, start: int, shape: Shape | None = None) -> Path | None:
        """The file of a window's masks, if the object has to be found; None if the window's own file has them."""
        finder = self.encoder.finder
        if finder is None or self.keeps_masks or self.source.has_masks(clip_id):
            return None
        width_px, height_px = shape or self.source.shape(clip_id)
        return self._path(
            CACHE_VERSION,
            "masks",
            self.source.key(clip_id),
            start,
            self.encoder.config.turn,
            height_px,
            width_px,
            pixels_per_latent(self.encoder.vae.config),
            finder.fingerprint,
        )

    def text_path_of(self, caption: str) -> Path | None:
        """The file of a caption; None if captions are not cached."""
        return self._text_path(self.encoder.tokens(caption))

    def _found_masks(self, clip_id: int, start: int, shape: Shape) -> Tensor | None:
        """The masks of a window in files of their own, found anew if they are missing; None: they are not."""
        path = self.masks_path_of(clip_id, start, shape)
        if path is None:
            return None
        tensors = self._read(path)
        if tensors is None:
            ends, _ = self.source.read(clip_id, [start, start + self.encoder.config.turn])
            name = self.source.name(clip_id)
            tensors = {"masks": self.encoder.latent_masks(ends, None, shape, name)}
            self._write(path, tensors)
        return tensors["masks"]

    def _text_path(self, tokens: Tensor) -> Path | None:
        if self.folder is None or self.encoder.text_encoder is None:
            return None
        ids = tuple(tokens.tolist())
        return self._path(CACHE_VERSION, "text", ids, self.encoder.text_fingerprint)

    def _path(self, *content: object) -> Path:
        assert self.folder is not None
        name = hashlib.sha256(repr(content).encode()).hexdigest()[:40]
        return self.folder / name[:2] / f"{name}.safetensors"

    def _read(self, path: Path) -> dict[str, Tensor] | None:
        try:
            return load_file(path)
        except FileNotFoundError:
            pass
        except (OSError, SafetensorError) as error:  # for instance cut off by a crash
            _log.warning("%s cannot be read and is encoded again: %s", path, error)
        with self._lock:
            self._hits_in_a_row = 0
        return None

    def _write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as partial:
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
        except (OSError, SafetensorError, LoopAnimateError) as error:
            if self.must_write:
                raise LoopAnimateError(
                    f"cannot write to the cache {self.folder}: {error}"
                ) from error
            _log.warning("cannot write to the cache %s: %s", self.folder, error)

    def _encode(
        self, clip_id: int, start: int, offsets: Sequence[int], shape: Shape
    ) -> EncodedClip:
        frames, masks = self.source.read(clip_id, [start + offset for offset in offsets])
        return self.encoder(offsets, frames, masks, shape, self.source.name(clip_id))
