"""Optimiser, learning rate and averaged weights (EMA)."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from loopanimate_core.errors import LoopAnimateError

from .config import OptimizerConfig
from .distributed.fsdp import shard_like

TEXT_ENCODER = "text_encoder."
# Bytes of optimiser state per trained parameter: two moments, in float32 or 8 bits.
STATE_BYTES = {"adamw": 2 * 4, "adamw8bit": 2 * 1}


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """AdamW over named parameters; the text encoder's learning rate is a share of the others'.

    Raises:
        LoopAnimateError: `kind` is adamw8bit, and bitsandbytes is not installed.
    """
    text = [p for name, p in parameters.items() if name.startswith(TEXT_ENCODER)]
    unet = [p for name, p in parameters.items() if not name.startswith(TEXT_ENCODER)]
    groups: list[dict[str, Any]] = [{"params": unet, "lr_share": 1.0}]
    if text:
        groups.append({"params": text, "lr_share": config.text_encoder_lr_share})
    settings: dict[str, Any] = {
        name: getattr(config, name) for name in ("lr", "betas", "eps", "weight_decay")
    }
    if config.kind == "adamw8bit":
        return _eight_bit_adamw()(groups, **settings)
    return torch.optim.AdamW(groups, fused=True, **settings)


def _eight_bit_adamw() -> type[torch.optim.Optimizer]:
    try:
        return importlib.import_module("bitsandbytes").optim.AdamW8bit
    except ImportError as error:
        raise LoopAnimateError(
            "optimizer.kind is adamw8bit, which needs the package bitsandbytes: pip install bitsandbytes,"
            " or use adamw"
        ) from error


def set_learning_rate(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int, steps: int
) -> float:
    """Set and return the learning rate of `step` (from 0)."""
    rate = config.lr * lr_factor(config, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_share"]
    return rate


def lr_factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate at `step` as a share of `lr`: linear warm-up, then constant, or linear or cosine to
    `final_lr_share`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    left = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.final_lr_share + (1 - config.final_lr_share) * left


def ema_decay(step: int, decay: float) -> float:
    """Decay at `step` (from 0): small at first, so that the initial weights soon lose their influence."""
    return min(decay, (1 + step) / (10 + step))


class Ema:
    """An exponential moving average of named parameters."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.parameters = dict(parameters)
        self.average = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after optimiser step `step` (from 0)."""
        weight = 1 - ema_decay(step, self.decay)
        for name, average in self.average.items():
            average.lerp_(self.parameters[name], weight)

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Overwrite the average in place with full tensors."""
        for name, tensor in average.items():
            self.average[name].copy_(shard_like(tensor, self.average[name]))
