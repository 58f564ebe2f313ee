"""Encoding clips and captions with a bundle's frozen networks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from loopanimate_core.bundle import Bundle
from loopanimate_core.conditions import mask_to_latent
from loopanimate_core.encoders.image import encode_image
from loopanimate_core.encoders.vae import encode_frames, pixels_per_latent
from loopanimate_core.picture.images import fit_mask, fit_picture
from loopanimate_core.picture.shapes import Shape

from ..config import RunConfig
from .object_masks import ObjectFinder


@dataclass(frozen=True)
class EncodedClip:
    """A window of a source clip, encoded.

    Attributes:
        offsets: source frames that were encoded, counted from the start of the window.
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
    """Encodes windows of source frames, and captions.

    The networks move to the device when they are needed, and back to the CPU with `offload()`. A text encoder
    that is trained is not used here; captions stay tokens then.
    """

    def __init__(self, bundle: Bundle, run: RunConfig, device: torch.device) -> None:
        self.config, self.device = run.clip, device
        self.finder = ObjectFinder(run.data.saliency) if run.clip.mask == "object" else None
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
    def on_device(self, restore: bool = False) -> Iterator[None]:
        """Move the networks to the device and keep them there while the block runs.

        Args:
            restore: move them back to the CPU afterwards, if they were not on the device before.
        """
        elsewhere = any(
            next(n.parameters()).device.type != self.device.type for n in self._networks
        )
        with self._lock:
            self._users += 1
            self._move(self.device)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
            if restore and elsewhere:
                self.offload()

    def offload(self) -> None:
        """Move the networks to the CPU, unless they are in use."""
        with self._lock:
            if self._users == 0:
                self._move(torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        for network in self._networks:
            if next(network.parameters()).device != device:
                network.to(device)

    def __call__(
        self,
        offsets: Sequence[int],
        frames: np.ndarray,
        masks: np.ndarray | None,
        shape: Shape,
        name: str,
    ) -> EncodedClip:
        """Encode `frames` [n, H, W, 3] uint8, the window's frames `offsets`; the first and the turning frame are
        among them.

        `masks` [2, H, W] belong to these two; without them the salient object is detected. Frames and masks are
        cropped to `shape`. `name` is the clip's, for warnings.
        """
        with self.on_device():
            return self._encode(offsets, frames, masks, shape, name)

    def latent_masks(
        self, ends: np.ndarray, masks: np.ndarray | None, shape: Shape, name: str
    ) -> Tensor:
        """Masks `[2, 1, h, w]` uint8 of the first and the turning frame, `ends` [2, H, W, 3] uint8 (Eq. 9, 10)."""
        side = pixels_per_latent(self.vae.config)
        size = shape.height_px // side, shape.width_px // side
        if self.finder is None:
            return torch.ones(2, 1, *size, dtype=torch.uint8)
        if masks is None:
            fitted = torch.stack([self.finder(_fitted(frame, shape), name) for frame in ends])
        else:
            whole = (shape.height_px, shape.width_px)
            fitted = torch.stack([fit_mask(torch.from_numpy(mask), *whole) for mask in masks])
        return mask_to_latent(fitted, *size).byte()

    def tokens(self, caption: str) -> Tensor:
        """Token ids `[T]` of a caption, padded and cut to the text encoder's length."""
        return self._tokenizer.padded([caption], self._text_length)[0]

    def text_states(self, tokens: Tensor) -> Tensor:
        """States `[T, D]` float16 of a caption's tokens. Always encoded alone, so that they do not depend on
        the rest of a batch."""
        assert self.text_encoder is not None
        with self.on_device(), torch.inference_mode():
            return self.text_encoder(tokens[None].to(self.device)).last_hidden_state[0].half().cpu()

    @torch.inference_mode()
    def _encode(
        self,
        offsets: Sequence[int],
        frames: np.ndarray,
        masks: np.ndarray | None,
        shape: Shape,
        name: str,
    ) -> EncodedClip:
        on_device = torch.stack([_fitted(frame, shape) for frame in frames]).to(self.device)
        # One by one: a frame's latents must not depend on the other frames of a batch.
        latents = encode_frames(self.vae, on_device, chunk=1)[0].transpose(0, 1).cpu()
        embeds = encode_image(self.image_encoder, on_device[:1].permute(0, 3, 1, 2))[0].cpu()
        ends = frames[[0, offsets.index(self.config.turn)]]
        latent_masks = self.latent_masks(ends, masks, shape, name)
        return EncodedClip(tuple(offsets), latents.half(), latent_masks, embeds.half())


def _fitted(frame: np.ndarray, shape: Shape) -> Tensor:
    """A frame [H, W, 3] uint8 as a picture in 0..1, cropped to `shape`."""
    return fit_picture(torch.from_numpy(frame).float() / 255, shape.height_px, shape.width_px)


def weights_hash(*modules: nn.Module) -> str:
    """A hash of the weights that are used for encoding, so without a VAE's decoder."""
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
