"""AutoencoderTiny (TAESD) with any number of blocks, in plain torch, with the parameter names of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import LoopAnimateError

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "swish": nn.SiLU, "gelu": nn.GELU, "mish": nn.Mish}


class Settings(dict[str, Any]):
    """A VAE's settings, also as attributes, as diffusers' configs have them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Block(nn.Module):
    """Three convolutions with a skip connection."""

    def __init__(self, channels: int, activation: type[nn.Module], ops: Any) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            ops.Conv2d(channels, channels, 3, padding=1),
            activation(),
            ops.Conv2d(channels, channels, 3, padding=1),
            activation(),
            ops.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Layers(nn.Module):
    """A stack whose parameters are named `layers.0`, `layers.1`, …"""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)


class Encoder(Layers):
    """Pictures in -1..1 to latents."""

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers((pictures + 1) / 2)


class Decoder(Layers):
    """Latents to pictures in -1..1."""

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(torch.tanh(latents / 3) * 3) * 2 - 1


class TinyVAE(nn.Module):
    """Encoder and decoder; pictures `[N, 3, H, W]` in -1..1, latents `[N, 4, H/8, W/8]`.

    Args:
        settings: a bundle's `vae` entry.
        ops: supplies Conv2d.
    """

    def __init__(self, settings: Mapping[str, Any], ops: Any = nn) -> None:
        super().__init__()
        if settings["upsample_fn"] != "nearest" or settings["act_fn"] not in ACTIVATIONS:
            raise LoopAnimateError(
                f"a tiny VAE must have upsample_fn 'nearest' and act_fn one of {', '.join(ACTIVATIONS)},"
                f" got {settings['upsample_fn']!r} and {settings['act_fn']!r}"
            )
        self.config = Settings(settings)
        self.encoder = Encoder(_encoder(settings, ops))
        self.decoder = Decoder(_decoder(settings, ops))

    # No property `device`: ComfyUI sets an attribute of that name on the models that it places.

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def encode(self, pictures: Tensor) -> Tensor:
        return self.encoder(pictures)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents)


def _encoder(settings: Mapping[str, Any], ops: Any) -> list[nn.Module]:
    channels, activation = settings["encoder_block_out_channels"], ACTIVATIONS[settings["act_fn"]]
    layers: list[nn.Module] = []
    for level, blocks in enumerate(settings["num_encoder_blocks"]):
        width = channels[level]
        if level == 0:
            layers.append(ops.Conv2d(settings["in_channels"], width, 3, padding=1))
        else:
            layers.append(ops.Conv2d(width, width, 3, padding=1, stride=2, bias=False))
        layers += [Block(width, activation, ops) for _ in range(blocks)]
    return [*layers, ops.Conv2d(channels[-1], settings["latent_channels"], 3, padding=1)]


def _decoder(settings: Mapping[str, Any], ops: Any) -> list[nn.Module]:
    channels, activation = settings["decoder_block_out_channels"], ACTIVATIONS[settings["act_fn"]]
    layers: list[nn.Module] = [
        ops.Conv2d(settings["latent_channels"], channels[0], 3, padding=1),
        activation(),
    ]
    last = len(channels) - 1
    for level, blocks in enumerate(settings["num_decoder_blocks"]):
        width = channels[level]
        layers += [Block(width, activation, ops) for _ in range(blocks)]
        if level < last:
            layers.append(nn.Upsample(scale_factor=settings["upsampling_scaling_factor"]))
            layers.append(ops.Conv2d(width, width, 3, padding=1, bias=False))
        else:
            layers.append(ops.Conv2d(width, settings["out_channels"], 3, padding=1))
    return layers
