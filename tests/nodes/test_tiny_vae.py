"""The extension's own AutoencoderTiny against diffusers', without a ComfyUI."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from loopanimate_core.bundle.components import vae_settings
from loopanimate_core.errors import LoopAnimateError

pytestmark = pytest.mark.numeric

FILE = Path(__file__).resolve().parent.parent.parent / "nodes/native/tiny_vae.py"


@pytest.fixture(scope="module")
def tiny_vae() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_vae", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("encoder_blocks", "decoder_blocks", "activation"),
    [((1, 3, 3, 3), (3, 3, 3, 1), "relu"), ((0, 1, 2, 2), (2, 2, 2, 1), "silu")],
)
def test_equal_to_diffusers(
    tiny_vae: ModuleType, encoder_blocks: Any, decoder_blocks: Any, activation: str
) -> None:
    """TAESD's own sizes, and the mini's."""
    torch.manual_seed(0)
    theirs: Any = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=encoder_blocks,
        num_decoder_blocks=decoder_blocks,
        act_fn=activation,
    ).eval()
    ours = tiny_vae.TinyVAE(vae_settings(theirs.config, "AutoencoderTiny"))
    ours.load_state_dict(theirs.state_dict())
    pictures = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.inference_mode():
        latents = theirs.encode(pictures).latents
        assert_close(ours.encode(pictures), latents, depth=NETWORK)
        decoded = theirs.decode(latents * 5).sample
        assert_close(ours.decode(latents * 5), decoded, depth=NETWORK)


def test_what_it_cannot_do_is_a_sentence(tiny_vae: ModuleType) -> None:
    settings = {"upsample_fn": "bilinear", "act_fn": "relu"}
    with pytest.raises(LoopAnimateError, match=r"upsample_fn 'nearest' .* got 'bilinear'"):
        tiny_vae.TinyVAE(settings)
