"""Encoding and decoding with the real autoencoder classes at toy size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close
from toy_bundle import build_toy_vae

from loopanimate_core.encoders.vae import decode_latents, encode_frames, pixels_per_latent
from loopanimate_core.errors import LoopAnimateError

pytestmark = pytest.mark.numeric


def tiny_kl() -> Any:
    torch.manual_seed(0)
    return build_toy_vae("kl")


def tiny_taesd() -> Any:
    torch.manual_seed(0)
    return build_toy_vae("tiny", scaling_factor=0.7)


@pytest.fixture(params=[tiny_kl, tiny_taesd], ids=["kl", "tiny"])
def vae(request: pytest.FixtureRequest):
    return request.param()


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.rand(5, 32, 48, 3, generator=torch.Generator().manual_seed(1))


def test_shapes_and_range(vae, frames) -> None:
    latents = encode_frames(vae, frames)
    assert latents.shape == (1, 4, 5, 4, 6)
    pictures = decode_latents(vae, latents)
    assert pictures.shape == frames.shape
    assert pictures.min() >= 0 and pictures.max() <= 1
    assert not latents.requires_grad and not pictures.requires_grad
    assert pixels_per_latent(vae.config) == 8


def test_equal_to_the_class_itself(vae, frames) -> None:
    """The pictures go in as -1..1 and come back from -1..1, scaled once each way."""
    with torch.no_grad():
        encoded = vae.encode(frames.permute(0, 3, 1, 2) * 2 - 1)
        plain = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        sample = vae.decode(plain).sample
    latents = encode_frames(vae, frames)
    assert_close(latents[0].transpose(0, 1), plain * vae.config.scaling_factor, depth=NETWORK)
    expected = ((sample + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
    assert_close(decode_latents(vae, latents), expected, depth=NETWORK)


def test_taesd_sees_pictures_in_0_to_1(frames) -> None:
    """TAESD's own layers work in 0..1: diffusers' -1..1 at its door must not be applied twice."""
    vae = tiny_taesd()
    pictures = frames.permute(0, 3, 1, 2)
    with torch.no_grad():
        inside = vae.encoder.layers(pictures) * vae.config.scaling_factor
    assert_close(encode_frames(vae, frames)[0].transpose(0, 1), inside, depth=NETWORK)


def test_gradients_reach_encoder_and_decoder_when_asked_for(vae, frames) -> None:
    restored = decode_latents(vae, encode_frames(vae, frames, grad=True), grad=True)
    (restored - frames).square().mean().backward()
    for half in (vae.encoder, vae.decoder):
        assert sum(p.grad.abs().sum() for p in half.parameters()) > 0


def test_chunks_change_nothing(vae, frames) -> None:
    latents = encode_frames(vae, frames, chunk=8)
    assert_close(encode_frames(vae, frames, chunk=2), latents, depth=NETWORK)
    by_two, by_eight = (decode_latents(vae, latents, chunk=chunk) for chunk in (2, 8))
    assert_close(by_two, by_eight, depth=NETWORK)


def test_half_precision_autoencoder_gives_float32(vae, frames) -> None:
    vae = vae.to(torch.bfloat16)
    latents = encode_frames(vae, frames)
    assert latents.dtype == decode_latents(vae, latents).dtype == torch.float32


@pytest.mark.parametrize("shape", [(32, 32, 3), (0, 32, 32, 3), (2, 3, 32, 32), (2, 33, 32, 3)])
def test_wrong_frames(vae, shape) -> None:
    with pytest.raises(LoopAnimateError, match="frames"):
        encode_frames(vae, torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 3, 4, 4), (2, 4, 3, 4, 4), (1, 3, 3, 4, 4), (1, 4, 0, 4, 4)])
def test_wrong_latents(vae, shape) -> None:
    with pytest.raises(LoopAnimateError, match="latents"):
        decode_latents(vae, torch.zeros(shape))
