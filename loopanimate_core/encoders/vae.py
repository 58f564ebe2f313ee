"""Pictures to latents and back, for both kinds of autoencoder that a bundle may hold.

`AutoencoderKL` (Stable Diffusion) encodes to a distribution, `AutoencoderTiny` (TAESD) to the latents
themselves; both use pictures in -1..1. The code is duck-typed, so diffusers is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import LoopAnimateError


def pixels_per_latent(config: Mapping[str, Any]) -> int:
    """The side, in pixels, of the square that one latent covers (8 for Stable Diffusion and TAESD).

    Args:
        config: a VAE's settings: the `config` of a diffusers VAE, or a bundle's `vae` entry.
    """
    channels = config.get("encoder_block_out_channels") or config["block_out_channels"]
    return 2 ** (len(channels) - 1)


def encode_frames(vae: Any, frames: Tensor, *, chunk: int = 8, grad: bool = False) -> Tensor:
    """Encode the frames of one clip (E of Eq. 5) to latents, multiplied by the VAE's scaling factor.

    Args:
        vae: diffusers `AutoencoderKL` (the mode of its distribution is taken) or `AutoencoderTiny`.
        frames: `[F, H, W, 3]` in 0..1.
        chunk: frames encoded at a time.
        grad: record gradients, for training the VAE itself.

    Returns:
        `[1, 4, F, H/8, W/8]` float32 on the VAE's device.

    Raises:
        LoopAnimateError: the frames have another shape, or a side is not a multiple of 8 pixels.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise LoopAnimateError(f"frames must be [F, H, W, 3] with F >= 1, got {list(frames.shape)}")
    side_px = pixels_per_latent(vae.config)
    height, width = frames.shape[1:3]
    if height % side_px or width % side_px:
        raise LoopAnimateError(
            f"frames are {width} x {height} pixels; width and height must be multiples of {side_px}"
        )
    with torch.set_grad_enabled(grad):
        parts = [_encode(vae, part) for part in frames.split(chunk)]
        return torch.cat(parts).transpose(0, 1).unsqueeze(0)


def decode_latents(vae: Any, latents: Tensor, *, chunk: int = 8, grad: bool = False) -> Tensor:
    """Decode the latents of one clip to pictures; the inverse of `encode_frames`.

    Args:
        vae: as in `encode_frames`.
        latents: `[1, 4, F, h, w]`, multiplied by the VAE's scaling factor.
        chunk: frames decoded at a time (about 0.4 GB each at 512 x 512 with Stable Diffusion's VAE).
        grad: record gradients.

    Returns:
        `[F, H, W, 3]` float32, clamped to 0..1, on the VAE's device.

    Raises:
        LoopAnimateError: the latents have another shape.
    """
    if latents.ndim != 5 or latents.shape[:2] != (1, 4) or not latents.shape[2]:
        raise LoopAnimateError(
            f"latents must be [1, 4, F, h, w] with F >= 1, got {list(latents.shape)}"
        )
    with torch.set_grad_enabled(grad):
        return torch.cat([_decode(vae, part) for part in latents[0].transpose(0, 1).split(chunk)])


def _encode(vae: Any, frames: Tensor) -> Tensor:
    pictures = frames.permute(0, 3, 1, 2).to(next(vae.parameters())) * 2 - 1
    encoded = vae.encode(pictures)
    if isinstance(encoded, Tensor):  # our TinyVAE
        latents = encoded
    else:
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return latents.float() * vae.config.scaling_factor


def _decode(vae: Any, latents: Tensor) -> Tensor:
    unscaled = (latents / vae.config.scaling_factor).to(next(vae.parameters()))
    decoded = vae.decode(unscaled)
    pictures = (decoded if isinstance(decoded, Tensor) else decoded.sample).float() / 2 + 0.5
    return pictures.clamp(0, 1).permute(0, 2, 3, 1)
