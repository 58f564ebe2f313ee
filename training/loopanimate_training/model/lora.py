"""Training LoRA adapters: they hang on the network's linear layers and leave its own names as they are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from loopanimate_core.bundle.lora import LowRank, merge_lora
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNet
from loopanimate_core.models.parts import is_idle, part_of

from ..config import LoraConfig
from ..rng import key_hash

ADAPTER = (
    "lora"  # the attribute of an adapted layer: its parameters are `<layer>.lora.down` and `.up`
)


class Adapter(nn.Module):
    """alpha/rank · up(down(x)); `up` starts at zero, so training starts from the network as it is."""

    hook: RemovableHandle

    def __init__(self, inputs: int, outputs: int, config: LoraConfig) -> None:
        super().__init__()
        self.alpha = config.alpha
        self.down = nn.Parameter(torch.empty(config.rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, config.rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.alpha / self.down.shape[0]
        return nn.functional.linear(nn.functional.linear(x, self.down), self.up * scale)

    def low_rank(self) -> LowRank:
        return LowRank(self.down.detach(), self.up.detach(), self.alpha)


def add_adapters(unet: LoopUNet, config: LoraConfig, seed: int) -> None:
    """Hang an adapter on every linear layer of `config.targets` that has an effect.

    Raises:
        LoopAnimateError: the network has no such layer.
    """
    chosen = {
        name: layer
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Linear) and _is_target(name, config, unet)
    }
    if not chosen:
        raise LoopAnimateError(f"the network has no linear layer in {', '.join(config.targets)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_hash(seed, "lora"))
        for layer in chosen.values():
            adapter = Adapter(layer.in_features, layer.out_features, config)
            adapter.hook = layer.register_forward_hook(_add_update)
            layer.add_module(ADAPTER, adapter)


def updates_of(unet: nn.Module) -> dict[str, LowRank]:
    """The adapters' updates by layer name; empty for a network without adapters."""
    return {
        name.removesuffix(f".{ADAPTER}"): module.low_rank()
        for name, module in unet.named_modules()
        if isinstance(module, Adapter)
    }


def merge_adapters(unet: nn.Module) -> None:
    """Add every adapter's update to its layer's weight and take the adapters away."""
    updates = updates_of(unet)
    merge_lora(unet, updates)
    for name in updates:
        layer: Any = unet.get_submodule(name)
        layer.lora.hook.remove()
        del layer.lora


def is_adapter(name: str) -> bool:
    """Whether a parameter's name is that of an adapter."""
    return f".{ADAPTER}." in name


def _add_update(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + layer.lora(inputs[0])


def _is_target(name: str, config: LoraConfig, unet: LoopUNet) -> bool:
    part = part_of(f"{name}.weight")
    if is_idle(f"{name}.weight", unet.config):
        return False
    return any(part == target or part.startswith(f"{target}.") for target in config.targets)
