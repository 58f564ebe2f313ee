"""How much memory a loop takes, estimated before the first step from sizes alone.

The estimates are low rather than high: they refuse what cannot fit, and let through what only might not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .memory import require_memory

if TYPE_CHECKING:
    from .bundle.config import BundleConfig
    from .settings import SamplingSettings

UNET_TENSORS = (
    24  # of the width of the first block that are held at once: skips, and a feed-forward layer's
)
VAE_TENSORS = (
    3  # of the width of its outermost block; 0.4 GB for a frame of 512 x 512 with AutoencoderKL
)
VAE_CHUNK = 8  # frames that are decoded at a time


def sampling_bytes(config: BundleConfig, settings: SamplingSettings, item_bytes: int = 4) -> int:
    """Memory of one denoising step, without weights."""
    side_px = config.pixels_per_latent
    places = (settings.height_px // side_px) * (settings.width_px // side_px)
    branches = 1 if settings.guidance == 1 else 2
    frames = min(settings.frames, config.window_frames(settings.frames))
    width = config.unet.block_out_channels[0]
    return branches * frames * places * width * item_bytes * UNET_TENSORS


def decoding_bytes(config: BundleConfig, settings: SamplingSettings, item_bytes: int = 4) -> int:
    """Memory of turning latents into frames, and of the frames."""
    pixels = settings.height_px * settings.width_px
    chunk = min(VAE_CHUNK, settings.frames)
    decoding = chunk * pixels * _outer_width(config.vae) * item_bytes * VAE_TENSORS
    return decoding + frames_bytes(settings)


def _outer_width(vae: Mapping[str, Any]) -> int:
    return int((vae.get("decoder_block_out_channels") or vae["block_out_channels"])[0])


def frames_bytes(settings: SamplingSettings) -> int:
    """Memory of the frames of a loop that is finished, float32."""
    return settings.frames * settings.height_px * settings.width_px * 3 * 4


def require_loop_memory(
    config: BundleConfig, settings: SamplingSettings, item_bytes: int = 4, loops: int = 1
) -> None:
    """Refuse a loop, or a chain of loops, that this computer's memory cannot hold.

    Args:
        item_bytes: of one number of the networks; 0 where they are on another device.
        loops: that are drawn one after the other and kept.

    Raises:
        LoopAnimateError: it needs more memory than there is.
    """
    drawing = max(
        estimate(config, settings, item_bytes) for estimate in (sampling_bytes, decoding_bytes)
    )
    what = "a loop of" if loops == 1 else f"a chain of {loops} loops of"
    require_memory(
        drawing + (loops - 1) * frames_bytes(settings),
        f"{what} {settings.frames} frames of {settings.width_px} x {settings.height_px} pixels",
        "choose a smaller --width and --height, or fewer --frames",
    )
