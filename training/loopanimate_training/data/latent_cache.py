"""Training clips: latents, masks and image embeddings of a window of source frames, and the text
encoder's states of a caption, made once and kept.

A file per window, named by everything that decides its content (the source clip, its start, the frames,
the size, the weights of the encoders), and one per caption, named by its tokens and the text encoder's
weights. So a cache can be shared between runs, grown at any time, filled by several processes, and never
pairs the wrong things.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loopanimate_core.bundle import Bundle
from loopanimate_core.conditions import mask_to_latent
from loopanimate_core.encoders.image import encode_image
from loopanimate_core.encoders.vae import encode_frames
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write
from loopanimate_core.picture.images import fit_mask, fit_picture
from loopanimate_core.picture.saliency import salient_mask

from ..config import RunConfig
from ..rng import key_hash
from .source import ClipSource

CACHE_VERSION = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedClip:
    """A window of a source clip, encoded.

    Attributes:
        latents: `[n, 4, h, w]` float16, one per offset, times the VAE's scaling factor.
        masks: `[2, 1, h, w]` uint8 in {0, 1}, of the first and the turning frame.
        image_embeds: `[T_i, D]` float16, of the first frame.
    """

    offsets: tuple[int, ...]
    latents: Tensor
    masks: Tensor
    image_embeds: Tensor

    def loop(self, indices: Sequence[int]) -> Tensor:
        """Latents of a loop over these offsets, `[4, F, h, w]` float32."""
        places = {offset: i for i, offset in enumerate(self.offsets)}
        return self.latents[[places[i] for i in indices]].transpose(0, 1).float()


class ClipEncoder:
    """Encodes windows of source frames and captions with a bundle's frozen networks.

    They come to the device when they are needed and leave it on `rest()`. A text encoder that trains is
    not among them: captions are its tokens then.
    """

    def __init__(self, bundle: Bundle, run: RunConfig, device: torch.device) -> None:
        self.config, self.device = run.clip, device
        self.vae, self.image_encoder = bundle.vae, bundle.image_encoder
        self.text_encoder = None if run.model.train_text_encoder else bundle.text_encoder
        found = (self.vae, self.image_encoder, self.text_encoder)
        self._networks = [network for network in found if network is not None]
        self._tokenizer = bundle.tokenizer
        self._text_length = bundle.text_encoder.config.max_position_embeddings
        self.fingerprint = weights_hash(self.vae, self.image_encoder)
        self._lock, self._users = threading.Lock(), 0

    @cached_property
    def text_fingerprint(self) -> str:
        """A hash of the frozen text encoder's weights."""
        assert self.text_encoder is not None
        return weights_hash(self.text_encoder)

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Have the encoders on the device for a while."""
        with self._lock:
            self._users += 1
            self._move(self.device)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1

    @contextmanager
    def visiting(self) -> Iterator[None]:
        """Have the encoders on the device for a while, and away again if they were away before."""
        away = any(next(n.parameters()).device.type != self.device.type for n in self._networks)
        try:
            with self.on_device():
                yield
        finally:
            if away:
                self.rest()

    def rest(self) -> None:
        """Give the memory of the device back, unless somebody is encoding."""
        with self._lock:
            if self._users == 0:
                self._move(torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        for network in self._networks:
            if next(network.parameters()).device != device:
                network.to(device)

    def __call__(
        self, offsets: Sequence[int], frames: np.ndarray, masks: np.ndarray | None
    ) -> EncodedClip:
        """Encode `frames` [n, H, W, 3] uint8, the first and last being the clip's first and turning frame.

        `masks` [2, H, W] are those of these two; without them the salient object is looked for.
        """
        with self.on_device():
            return self._encode(offsets, frames, masks)

    def tokens(self, caption: str) -> Tensor:
        """Token ids `[T]` of a caption, padded and cut to the text encoder's length."""
        with self._lock:  # a tokenizer is not safe between threads
            found = self._tokenizer(
                [caption], padding="max_length", truncation=True, max_length=self._text_length,
                return_tensors="pt",
            )  # fmt: skip
        return found.input_ids[0]

    def text_states(self, tokens: Tensor) -> Tensor:
        """States `[T, D]` float16 of a caption's tokens, encoded alone, whatever else is in the batch."""
        assert self.text_encoder is not None
        with self.on_device(), torch.inference_mode():
            return self.text_encoder(tokens[None].to(self.device)).last_hidden_state[0].half().cpu()

    @torch.inference_mode()
    def _encode(
        self, offsets: Sequence[int], frames: np.ndarray, masks: np.ndarray | None
    ) -> EncodedClip:
        height, width = self.config.height_px, self.config.width_px
        pixels = torch.stack(
            [fit_picture(torch.from_numpy(frame).float() / 255, height, width) for frame in frames]
        )
        on_device = pixels.to(self.device)
        # One by one: a frame's latents must not depend on which others are encoded along with it.
        latents = encode_frames(self.vae, on_device, chunk=1)[0].transpose(0, 1).cpu()
        embeds = encode_image(self.image_encoder, on_device[:1].permute(0, 3, 1, 2))[0].cpu()
        latent_masks = torch.ones(2, 1, *latents.shape[-2:])
        if self.config.mask == "object":
            fitted = self._object_masks(pixels[[0, -1]], masks)
            latent_masks = mask_to_latent(fitted, *latents.shape[-2:])
        return EncodedClip(tuple(offsets), latents.half(), latent_masks.byte(), embeds.half())

    def _object_masks(self, ends: Tensor, masks: np.ndarray | None) -> Tensor:
        if masks is None:
            return torch.stack([salient_mask(picture) for picture in ends])
        height, width = self.config.height_px, self.config.width_px
        return torch.stack([fit_mask(torch.from_numpy(mask), height, width) for mask in masks])


class ClipStore:
    """`get(clip_id, start)` and `text(caption)` from the cache folder, or made and put into it.

    Once an epoch of clips has come from the cache, the encoders leave the device until one does not.
    Training goes on without the cache where the disk is full; with `must_keep`, for filling the cache,
    what cannot be kept is an error.
    """

    def __init__(
        self, source: ClipSource, encoder: ClipEncoder, cache: Path | None, must_keep: bool = False
    ) -> None:
        if cache is not None and cache.exists() and not cache.is_dir():
            raise LoopAnimateError(f"data.cache is {cache}; that is a file, and must be a folder")
        self.source, self.encoder, self.cache = source, encoder, cache
        self.must_keep, self._found_in_a_row = must_keep, 0
        self._lock = threading.Lock()  # of the count
        config = encoder.config
        self._grid = tuple(
            range(0, config.span_frames, math.gcd(config.stride, *config.reverse_steps))
        )

    @property
    def grid_size(self) -> int:
        """Frames of a window in the cache."""
        return len(self._grid)

    def start_of(self, clip_id: int, window: int) -> int:
        """Start of one of the clip's `starts_per_clip` windows: its first frame, or one drawn from its key."""
        room = self.source.frame_count(clip_id) - self.encoder.config.span_frames
        window %= self.encoder.config.starts_per_clip
        return 0 if window == 0 else key_hash(self.source.key(clip_id), window) % (room + 1)

    def get(self, clip_id: int, start: int, loop: Sequence[int] | None = None) -> EncodedClip:
        """The window at `start`. Without a cache only the offsets in `loop` are read and encoded."""
        if self.cache is None:
            return self._encode(clip_id, start, sorted(set(loop)) if loop else self._grid)
        path = self.path_of(clip_id, start)
        tensors = self._load(path)
        if tensors is None:
            clip = self._encode(clip_id, start, self._grid)
            self._keep(
                path,
                {"latents": clip.latents, "masks": clip.masks, "image_embeds": clip.image_embeds},
            )
            return clip
        with self._lock:
            self._found_in_a_row += 1
            complete = self._found_in_a_row >= len(self.source)
        if complete:  # every time: somebody may have been encoding, or drawing, the time before
            self.encoder.rest()
        return EncodedClip(
            self._grid, tensors["latents"], tensors["masks"], tensors["image_embeds"]
        )

    def text(self, caption: str) -> Tensor:
        """A caption for the network: states `[T, D]`, or tokens `[T]` for a text encoder that trains."""
        tokens = self.encoder.tokens(caption)
        if self.encoder.text_encoder is None:
            return tokens
        path = self._text_path(tokens)
        if path is None:
            return self.encoder.text_states(tokens).float()
        tensors = self._load(path)
        if tensors is None:
            tensors = {"text_states": self.encoder.text_states(tokens)}
            self._keep(path, tensors)
        return tensors["text_states"].float()

    def path_of(self, clip_id: int, start: int) -> Path:
        """Where the window lies in the cache."""
        config = self.encoder.config
        return self._path(
            CACHE_VERSION, self.source.key(clip_id), start, self._grid, config.height_px, config.width_px,
            config.mask, self.encoder.fingerprint,
        )  # fmt: skip

    def text_path_of(self, caption: str) -> Path | None:
        """Where the caption's states lie in the cache; None where none are kept."""
        return self._text_path(self.encoder.tokens(caption))

    def _text_path(self, tokens: Tensor) -> Path | None:
        if self.cache is None or self.encoder.text_encoder is None:
            return None
        ids = tuple(tokens.tolist())
        return self._path(CACHE_VERSION, "text", ids, self.encoder.text_fingerprint)

    def _path(self, *content: object) -> Path:
        assert self.cache is not None
        name = hashlib.sha256(repr(content).encode()).hexdigest()[:40]
        return self.cache / name[:2] / f"{name}.safetensors"

    def _load(self, path: Path) -> dict[str, Tensor] | None:
        try:
            return load_file(path)
        except FileNotFoundError:
            pass
        except (OSError, SafetensorError) as error:  # cut off by a crash of the machine, or worse
            _log.warning("%s cannot be read and is made anew: %s", path, error)
        with self._lock:
            self._found_in_a_row = 0
        return None

    def _keep(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as partial:
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
        except (OSError, SafetensorError, LoopAnimateError) as error:
            if self.must_keep:
                raise LoopAnimateError(
                    f"the cache {self.cache} does not take a file: {error}"
                ) from error
            _log.warning("the cache cannot grow: %s", error)

    def _encode(self, clip_id: int, start: int, offsets: Sequence[int]) -> EncodedClip:
        frames, masks = self.source.read(clip_id, [start + offset for offset in offsets])
        return self.encoder(offsets, frames, masks)


def weights_hash(*modules: nn.Module) -> str:
    """A hash of the weights that encode (all but a VAE's decoder), to tell encoders apart."""
    return tensors_hash(
        (name, tensor)
        for module in modules
        for name, tensor in sorted(module.state_dict().items())
        if not name.startswith(("decoder.", "post_quant_conv."))
    )


def tensors_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A hash of names and bytes, in the given order."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(name.encode())
        content: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()[:16]
