"""A whole model at toy size, shared by the tests of this folder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
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

CLIP: dict[str, Any] = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def make_tiny_bundle(seed: int = 0) -> Bundle:
    """A bundle with Stable Diffusion's topology (4 levels, KL autoencoder) and a vocabulary of bytes."""
    torch.manual_seed(seed)
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), START, END]
    tokenizer = {"vocab": {token: i for i, token in enumerate(tokens)}, "merges": []}
    unet = LoopUNetConfig(
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=2,
        cross_attention_dim=16,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        norm_num_groups=4,
    )
    build_vae: Any = AutoencoderKL
    vae = build_vae(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
    )
    text_encoder: Any = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=16,
            bos_token_id=len(tokens) - 2,
            eos_token_id=len(tokens) - 1,
            **CLIP,
        )
    )
    image_encoder: Any = CLIPVisionModelWithProjection(
        CLIPVisionConfig(hidden_size=16, image_size=32, patch_size=8, projection_dim=16, **CLIP)
    )
    config = BundleConfig(
        unet=unet,
        vae=vae_settings(vae.config, "AutoencoderKL"),
        text_encoder=text_encoder_settings(text_encoder.config),
        image_encoder=image_encoder_settings(image_encoder.config),
        tokenizer=tokenizer,
        height_px=64,
        width_px=64,
    )
    return Bundle(
        config=config,
        unet=LoopUNet(unet).eval(),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        image_encoder=image_encoder.eval(),
        tokenizer=build_tokenizer(tokenizer),
        provenance={"made by": "a test"},
    )


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """Read-only: tests that change weights make their own with `make_tiny_bundle`."""
    return make_tiny_bundle()
