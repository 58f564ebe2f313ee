"""Toy networks with the real key layouts, and helpers that compare two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_motion_model import MotionAdapter
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from loopanimate_core.bundle import Bundle
from loopanimate_core.bundle.components import PARTS, state_of

CHANNELS = (32, 64, 64, 64)
CLIP: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "projection_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
}
State = dict[str, torch.Tensor]


class Parts:
    """Toy networks of the real classes: every key of Stable Diffusion 1.x's parts, at small sizes."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        build_unet, build_vae, build_adapter = map(
            _untyped, (UNet2DConditionModel, AutoencoderKL, MotionAdapter)
        )
        self.unet = build_unet(
            block_out_channels=CHANNELS, cross_attention_dim=64, attention_head_dim=8, sample_size=8
        )
        self.vae = build_vae(
            block_out_channels=(32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        self.text_encoder: Any = CLIPTextModel(CLIPTextConfig(vocab_size=49_408, **CLIP))
        self.image_encoder: Any = CLIPVisionModelWithProjection(
            CLIPVisionConfig(image_size=32, patch_size=8, **CLIP)
        )
        self.adapter = build_adapter(
            block_out_channels=CHANNELS, motion_max_seq_length=32, use_motion_mid_block=False
        )
        self.adapter_v2 = build_adapter(
            block_out_channels=CHANNELS, motion_max_seq_length=32, use_motion_mid_block=True
        )

    def save_folders(self, folder: Path) -> Path:
        """Folders as in sd-image-variations: without a text encoder."""
        for part in ("unet", "vae", "image_encoder"):
            getattr(self, part).save_pretrained(folder / part)
        return folder


def _untyped(cls: Any) -> Any:
    return cls


def save(state: State, path: Path) -> Path:
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path)
    return path


def load(path: Path) -> State:
    return safetensors.torch.load_file(path)


def assert_equal(left: Any, right: Any) -> None:
    left, right = dict(left), dict(right)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def assert_same_model(left: Bundle, right: Bundle, *, but: tuple[str, ...] = ()) -> None:
    for part in PARTS:
        a, b = (state_of(part, bundle.module(part)) for bundle in (left, right))
        assert_equal(
            *({k: v for k, v in s.items() if not k.startswith(but or ("-",))} for s in (a, b))
        )
