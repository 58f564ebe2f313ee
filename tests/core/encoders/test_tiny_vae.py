"""Our AutoencoderTiny compared with diffusers'."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from loopanimate_core.bundle.components import vae_settings
from loopanimate_core.encoders.tiny_vae import TinyVAE
from loopanimate_core.errors import LoopAnimateError

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize(
    ("encoder_blocks", "decoder_blocks", "activation"),
    [((1, 3, 3, 3), (3, 3, 3, 1), "relu"), ((0, 1, 2, 2), (2, 2, 2, 1), "silu")],
)
def test_equal_to_diffusers(encoder_blocks: Any, decoder_blocks: Any, activation: str) -> None:
    """The sizes of TAESD and of the mini."""
    torch.manual_seed(0)
    theirs: Any = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=encoder_blocks,
        num_decoder_blocks=decoder_blocks,
        act_fn=activation,
    ).eval()
    ours = TinyVAE(vae_settings(theirs.config, "AutoencoderTiny"))
    ours.load_state_dict(theirs.state_dict())
    pictures = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.inference_mode():
        latents = theirs.encode(pictures).latents
        assert_close(ours.encode(pictures), latents, depth=NETWORK)
        decoded = theirs.decode(latents * 5).sample
        assert_close(ours.decode(latents * 5), decoded, depth=NETWORK)


def test_unsupported_settings_raise_one_sentence() -> None:
    settings = {"upsample_fn": "bilinear", "act_fn": "relu"}
    with pytest.raises(LoopAnimateError, match=r"upsample_fn 'nearest' .* got 'bilinear'"):
        TinyVAE(settings)
