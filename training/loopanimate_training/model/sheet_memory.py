"""How much memory encoding clips and drawing validation sheets need besides training, counted like a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from loopanimate_core.bundle.components import build_on_meta
from loopanimate_core.encoders.vae import decode_latents, encode_frames, pixels_per_latent
from loopanimate_core.models import LoopUNetConfig
from loopanimate_core.picture.shapes import Shape

from ..config import RunConfig
from .memory import FLOAT32, LiveBytes, RunMemory, build_network, network_inputs
from .precision import DTYPES

GUIDED = 2  # with guidance the network predicts with and without the prompt


def encoding_bytes(vae: Mapping[str, Any], shape: Shape) -> int:
    """Peak of encoding one frame of a clip; the VAE itself does not count.

    Args:
        vae: its settings, as in a bundle's header.
    """
    network = build_on_meta("vae", vae)
    frames = torch.empty(1, shape.height_px, shape.width_px, 3, device="meta")
    with LiveBytes([*network.parameters(), frames]) as live:
        encode_frames(network, frames, chunk=1)
    return live.peak


def decoding_bytes(vae: Mapping[str, Any], shape: Shape, frames: int) -> int:
    """Peak of decoding a loop of so many frames; in float32, so with autocast it is less."""
    network, side = build_on_meta("vae", vae), pixels_per_latent(vae)
    latents = torch.empty(
        1, 4, frames, shape.height_px // side, shape.width_px // side, device="meta"
    )
    with LiveBytes([*network.parameters(), latents]) as live:
        decode_latents(network, latents)
    return live.peak


def sampling_bytes(config: RunConfig, unet: LoopUNetConfig) -> int:
    """Peak of one guided prediction for a loop of the run's length."""
    one = config.model_copy(update={"batch": config.batch.model_copy(update={"size": GUIDED})})
    precision = config.precision
    rounds = torch.autocast("cpu", DTYPES[precision]) if precision in DTYPES else nullcontext()
    with FakeTensorMode(), torch.no_grad():
        network = build_network(one, unet, config.clip.frames)
        inputs = network_inputs(one, unet, config.clip.frames)
        with LiveBytes([*network.parameters(), *inputs]) as live, rounds:
            network(*inputs)
    return live.peak


def sheet_memory(memory: RunMemory, encoders: int, drawing: int) -> int:
    """Bytes on the GPU while a sheet is drawn: no gradients and activations, but the encoders and the trained weights
    beside their average.

    Args:
        encoders: number of parameters of the VAE and the encoders that training itself does not keep there.
        drawing: peak of sampling or decoding, whichever is larger.
    """
    kept = dataclasses.replace(memory, gradients=0, step=drawing, encoding=0)
    return kept.total + FLOAT32 * encoders + memory.average
