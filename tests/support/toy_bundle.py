"""A whole bundle at toy size: the real classes with random weights, for pictures of 64 × 64 pixels."""

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from loopanimate_core.bundle import Bundle, BundleConfig
from loopanimate_core.bundle.components import (
    image_encoder_settings,
    text_encoder_settings,
    vae_settings,
)
from loopanimate_core.encoders.tokenizer import END, START, build_tokenizer, byte_symbols
from loopanimate_core.models import LoopUNet, LoopUNetConfig
from loopanimate_core.schedule import ScheduleConfig
from loopanimate_core.settings import SamplingDefaults


def build_toy_bundle(
    vae: Literal["tiny", "kl"] = "tiny",
    *,
    layers: int = 1,
    unet: LoopUNetConfig | None = None,
    tokenizer: Literal["bytes", "clip"] = "bytes",
    image_px: int = 16,
    patch_px: int = 8,
    schedule: ScheduleConfig | None = None,
    seed: int = 0,
) -> Bundle:
    """Build a bundle in under a megabyte.

    Args:
        layers: layers per block of the UNet.
        unet: another UNet; its `cross_attention_dim` is the width of both encoders.
        tokenizer: a vocabulary of single bytes, or CLIP's own.
        image_px, patch_px: input size and patch size of the image encoder.
        schedule: by default `v_prediction`.
    """
    torch.manual_seed(seed)
    unet = unet or LoopUNetConfig(
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=layers,
        cross_attention_dim=16,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        norm_num_groups=4,
    )
    width = unet.cross_attention_dim
    clip: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": width,
        "projection_dim": width,
        "num_hidden_layers": 2,
        "num_attention_heads": max(1, width // 64) if width >= 64 else 2,
    }
    words: Any = "clip"
    special: dict[str, Any] = {}
    if tokenizer == "bytes":
        words, special = _byte_vocabulary()
    text = CLIPTextConfig(**clip, **special)
    image = CLIPVisionConfig(**clip, image_size=image_px, patch_size=patch_px)
    autoencoder = build_toy_vae(vae, groups=unet.norm_num_groups)
    config = BundleConfig(
        unet=unet,
        vae=vae_settings(autoencoder.config, type(autoencoder).__name__),
        text_encoder=text_encoder_settings(text),
        image_encoder=image_encoder_settings(image),
        tokenizer=words,
        schedule=schedule or ScheduleConfig(prediction_type="v_prediction"),
        height_px=64,
        width_px=64,
        defaults=SamplingDefaults(steps=2, guidance=2.0, frames=15),
    )
    return Bundle(
        config=config,
        unet=LoopUNet(unet).eval(),
        vae=autoencoder,
        text_encoder=CLIPTextModel(text).eval(),
        image_encoder=CLIPVisionModelWithProjection(image).eval(),
        tokenizer=build_tokenizer(words),
        provenance={"made by": "a test"},
    )


def build_toy_vae(kind: Literal["tiny", "kl"], *, groups: int = 4, **settings: Any) -> Any:
    """An autoencoder of 8 pixels per latent with `2 * groups` (kl) or 8 (tiny) channels."""
    if kind == "tiny":
        build: Any = AutoencoderTiny  # the annotations of both say tuples of length one
        sizes: dict[str, Any] = {
            "encoder_block_out_channels": (8, 8, 8, 8),
            "decoder_block_out_channels": (8, 8, 8, 8),
            "num_encoder_blocks": (1, 1, 1, 1),
            "num_decoder_blocks": (1, 1, 1, 1),
        }
    else:
        build = AutoencoderKL
        sizes = {
            "block_out_channels": (2 * groups,) * 4,
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
            "latent_channels": 4,
            "norm_num_groups": groups,
        }
    return build(**sizes | settings).eval()


def _byte_vocabulary() -> tuple[dict[str, Any], dict[str, Any]]:
    """A tokenizer entry of single bytes, and the text encoder's settings for it."""
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), START, END]
    end = len(tokens) - 1
    words = {"vocab": {token: index for index, token in enumerate(tokens)}, "merges": []}
    return words, {
        "vocab_size": len(tokens),
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": end,
    }
