"""A whole model at toy size, and small videos of a moving shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loopanimate_core.bundle import Bundle, BundleConfig, write_bundle
from loopanimate_core.components import image_encoder_settings, text_encoder_settings, vae_settings
from loopanimate_core.models import LoopUNet, LoopUNetConfig
from loopanimate_core.sampling import SamplingDefaults
from loopanimate_core.schedule import ScheduleConfig
from loopanimate_core.text import END, START, build_tokenizer, byte_symbols

SIDE_PX = 32


def toy_tokenizer() -> dict[str, object]:
    """Bytes alone: every prompt can be written."""
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), START, END]
    return {"vocab": {token: i for i, token in enumerate(tokens)}, "merges": []}


def toy_bundle(seed: int = 0, channels: tuple[int, ...] = (8, 16)) -> Bundle:
    """All four networks, random, small enough for milliseconds per step."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    width, vocabulary = 16, toy_tokenizer()
    unet_config = LoopUNetConfig(
        block_out_channels=channels, layers_per_block=1, cross_attention_dim=width, num_attention_heads=2,
        motion_num_attention_heads=2, norm_num_groups=4,
    )  # fmt: skip
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4,
    )  # fmt: skip
    common = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    entries = len(vocabulary["vocab"])  # type: ignore[arg-type]
    ids = {"bos_token_id": entries - 2, "eos_token_id": entries - 1, "pad_token_id": entries - 1}
    text = CLIPTextModel(CLIPTextConfig(**common, projection_dim=width, vocab_size=entries, **ids))
    image = CLIPVisionModelWithProjection(
        CLIPVisionConfig(**common, projection_dim=width, image_size=16, patch_size=8)
    )
    unet = LoopUNet(unet_config)
    unet.zero_motion()
    config = BundleConfig(
        unet=unet_config,
        vae=vae_settings(vae.config, "AutoencoderTiny"),
        text_encoder=text_encoder_settings(text.config),
        image_encoder=image_encoder_settings(image.config),
        tokenizer=vocabulary,
        schedule=ScheduleConfig(prediction_type="v_prediction"),
        frames=(15,),
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        defaults=SamplingDefaults(steps=2, guidance=2.0, frames=15),
    )
    return Bundle(config, unet, vae.eval(), text.eval(), image.eval(), build_tokenizer(vocabulary))


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy bundle on disk."""
    path = tmp_path_factory.mktemp("bundle") / "toy.safetensors"
    write_bundle(path, toy_bundle(), torch.float32)
    return path
