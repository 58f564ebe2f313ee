"""Settings for every test; shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# Nothing may reach for a model hub, and parallel workers must not fight over the cores. Both are
# read when the libraries are first imported, so they are set before any test module is.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def toy_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle in under a megabyte: the real classes with random weights, 64 × 64 pixels."""
    import torch
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    from loopanimate_core.bundle import Bundle, BundleConfig, write_bundle
    from loopanimate_core.bundle.components import image_encoder_settings as image_settings
    from loopanimate_core.bundle.components import text_encoder_settings as text_settings
    from loopanimate_core.bundle.components import vae_settings
    from loopanimate_core.encoders.tokenizer import END, START, build_tokenizer, byte_symbols
    from loopanimate_core.models import LoopUNet, LoopUNetConfig
    from loopanimate_core.schedule import ScheduleConfig
    from loopanimate_core.settings import SamplingDefaults

    torch.manual_seed(0)
    width = 16  # of every embedding
    clip: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": width,
        "projection_dim": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), START, END]
    ids: dict[str, Any] = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    text = CLIPTextConfig(**clip, **ids, pad_token_id=len(tokens) - 1, vocab_size=len(tokens))
    image = CLIPVisionConfig(**clip, image_size=16, patch_size=8)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )
    config = BundleConfig(
        unet=LoopUNetConfig(
            block_out_channels=(8, 16, 16, 16),
            layers_per_block=1,
            cross_attention_dim=width,
            num_attention_heads=2,
            motion_num_attention_heads=2,
            norm_num_groups=4,
        ),
        vae=vae_settings(vae.config, "AutoencoderTiny"),
        text_encoder=text_settings(text),
        image_encoder=image_settings(image),
        tokenizer={"vocab": {token: index for index, token in enumerate(tokens)}, "merges": []},
        schedule=ScheduleConfig(prediction_type="v_prediction"),
        height_px=64,
        width_px=64,
        defaults=SamplingDefaults(steps=2, guidance=2.0, frames=15),
    )
    bundle = Bundle(
        config=config,
        unet=LoopUNet(config.unet),
        vae=vae,
        text_encoder=CLIPTextModel(text),
        image_encoder=CLIPVisionModelWithProjection(image),
        tokenizer=build_tokenizer(config.tokenizer),
    )
    path = tmp_path_factory.mktemp("bundle") / "toy.safetensors"
    write_bundle(path, bundle, title="Toy")
    return path
