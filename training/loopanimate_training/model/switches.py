"""Settings that trade memory for time without changing what the network computes, applied to a UNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNet
from loopanimate_core.models.layers import MotionModule, ResnetBlock, SpatialTransformer

from ..config import ModelConfig
from .precision import round_frozen_weights

# Settings of `model` that save memory, with the values that turn them off.
MEMORY_SWITCHES: dict[str, Any] = {
    "gradient_checkpointing": False,
    "chunk_frames": None,
    "chunk_pixels": None,
}


def use_memory_switches(unet: LoopUNet, model: ModelConfig, precision: str) -> None:
    """Gradient checkpointing, chunks, and frozen weights kept in half precision; after freezing."""
    for name in MEMORY_SWITCHES:
        setattr(unet, name, getattr(model, name))
    round_frozen_weights(unet, precision)


def use_speed_switches(unet: LoopUNet, model: ModelConfig) -> None:
    """Channels-last layout and compilation.

    Raises:
        LoopAnimateError: torch.compile has no backend of that name.
    """
    if model.channels_last:
        unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if model.compile is not None:
        for module in unet.modules():
            if isinstance(module, ResnetBlock | SpatialTransformer | MotionModule):
                _compile(module, model.compile)


def _compile(module: nn.Module, backend: str) -> None:
    from torch._dynamo.exc import InvalidBackend  # slow to import, and rarely needed

    try:
        module.compile(backend=backend)
    except InvalidBackend as error:
        raise LoopAnimateError(
            f"model.compile is {backend!r}; choose one of {', '.join(torch.compiler.list_backends())}"
        ) from error
