"""The mini's VAE: an `AutoencoderTiny`, its initialisation and losses.

The class has no normalisation layers, so the initial weights matter: with the default ones the decoder paints the
mean colour for a long time. He weights, a zero last convolution in every residual block and a small output layer
pass a linear code within a tenth of the training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class CropPhase:
    """`steps` optimiser steps on batches of `batch` crops of `crop_px` × `crop_px` pixels."""

    steps: int
    crop_px: int
    batch: int

    @property
    def pixels(self) -> int:
        return self.steps * self.batch * self.crop_px**2


@dataclass(frozen=True)
class VaeRecipe:
    """Sizes of the VAE, and the schedule of its training.

    Attributes:
        encoder_blocks: few, because training the UNet encodes every frame.
        joint: training of encoder and decoder together; crops grow, because small ones are cheap.
        decoder: training of the decoder alone.
        latent_noise: standard deviation of noise that is added to the latents in training.
        workers: threads that draw clips.
    """

    size_px: int = 96
    channels: int = 32
    encoder_blocks: tuple[int, ...] = (0, 1, 2, 2)
    decoder_blocks: tuple[int, ...] = (2, 2, 2, 1)
    learning_rate: float = 2e-3
    decoder_learning_rate: float = 1e-3
    joint: tuple[CropPhase, ...] = (
        CropPhase(steps=4_800, crop_px=32, batch=16),
        CropPhase(steps=2_650, crop_px=48, batch=12),
        CropPhase(steps=1_350, crop_px=96, batch=4),
    )
    decoder: CropPhase = CropPhase(steps=9_100, crop_px=96, batch=4)
    latent_noise: float = 0.05
    bf16: bool = False
    device: str = "cpu"
    workers: int = 1
    seed: int = 0

    @property
    def joint_steps(self) -> int:
        return sum(phase.steps for phase in self.joint)


def schedule(phases: tuple[CropPhase, ...], first: int = 0) -> Iterator[tuple[float, int, int]]:
    """For every step from number `first` on: the share of all pixels seen before it, crop size and batch."""
    total, seen, step = sum(phase.pixels for phase in phases), 0, 0
    for phase in phases:
        for _ in range(phase.steps):
            if step >= first:
                yield seen / total, phase.crop_px, phase.batch
            seen += phase.batch * phase.crop_px**2
            step += 1


def build_vae(recipe: VaeRecipe) -> Any:
    """A new `diffusers.AutoencoderTiny` with 8 × 8 pixels per latent and 4 latent channels."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    torch.manual_seed(recipe.seed)
    widths = (recipe.channels,) * 4
    vae = AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=recipe.encoder_blocks,
        num_decoder_blocks=recipe.decoder_blocks,
    )
    initialise(vae)
    return vae


def initialise(vae: Any) -> None:
    """He weights; residual blocks start as the identity, and the output as mid-grey."""
    from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock

    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in vae.modules():
        if isinstance(module, AutoencoderTinyBlock):
            nn.init.zeros_(cast("nn.Conv2d", module.conv[-1]).weight)
    with torch.no_grad():
        vae.encoder.layers[-1].weight.mul_(0.5)
        vae.decoder.layers[-1].weight.mul_(0.1)
        vae.decoder.layers[-1].bias.fill_(0.5)


def encode(vae: Any, pictures: Tensor) -> Tensor:
    """Latents [n, 4, h, w] of pictures [n, 3, H, W] in 0..1."""
    return vae.encoder(pictures * 2 - 1)


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Pictures [n, 3, H, W] in 0..1 of latents [n, 4, h, w]."""
    return vae.decoder(latents) * 0.5 + 0.5


def reconstruction_loss(made: Tensor, true: Tensor) -> Tensor:
    """L1 + 2 MSE + 0.2 L1 of the picture gradients; pictures [n, 3, H, W] in 0..1."""
    error = made - true
    gradients = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 2.0 * error.square().mean() + 0.2 * gradients


def spread_penalty(latents: Tensor) -> Tensor:
    """Distance of each latent channel from zero mean and unit standard deviation; latents [n, C, h, w].

    It fixes the scale that the training noise is relative to, and keeps latents away from the decoder's clamp
    at ±3.
    """
    channels = latents.transpose(0, 1).flatten(1)
    return channels.mean(1).square().mean() + (channels.std(1) - 1.0).square().mean()


def psnr_db(made: Tensor, true: Tensor) -> float:
    """Peak signal-to-noise ratio of pictures in 0..1, from the mean of all squared errors."""
    return -10.0 * math.log10((made.clamp(0, 1) - true).square().mean().item())


@torch.no_grad()
def reconstruction_psnr_db(vae: Any, pictures: Tensor) -> float:
    """PSNR of pictures [n, 3, H, W] after encoding and decoding, without noise."""
    device = next(vae.parameters()).device
    parts = (part.to(device) for part in pictures.split(16))
    made = torch.cat([decode(vae, encode(vae, part)).cpu() for part in parts])
    return psnr_db(made, pictures)


@torch.no_grad()
def normalise_latents(vae: Any, pictures: Tensor) -> None:
    """Fold mean and standard deviation of the latents of `pictures` [n, 3, H, W] into the encoder's last layer.

    The decoder's first layer gets the inverse. Its clamp at ±3 comes before that layer, so this is not exact for
    large latents; training the decoder corrects it.
    """
    device = next(vae.parameters()).device
    latents = torch.cat([encode(vae, part.to(device)) for part in pictures.split(16)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    last, first = vae.encoder.layers[-1], vae.decoder.layers[0]
    last.weight.div_(deviation[:, None, None, None])
    last.bias.sub_(mean).div_(deviation)
    first.bias.add_((first.weight * mean[:, None, None]).sum((1, 2, 3)))
    first.weight.mul_(deviation[:, None, None])
