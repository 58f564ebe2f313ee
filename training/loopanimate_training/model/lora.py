"""LoRA adapters in training: added to linear layers, without changing the names of the network's weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from loopanimate_core.bundle.lora import LowRank, merge_lora
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNet
from loopanimate_core.models.parts import in_part, is_idle

from ..config import LoraConfig
from ..rng import key_hash

ADAPTER = "lora"  # attribute of an adapted layer; its parameters are `<layer>.lora.down` and `.up`


class Adapter(nn.Module):
    """alpha/rank · up(down(x)); `up` starts at zero, so a new adapter does not change the network."""

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
    """Add an adapter to every linear layer in `config.targets` that has an effect.

    Raises:
        LoopAnimateError: the network has no linear layer in the targets.
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


def adapter_updates(unet: nn.Module) -> dict[str, LowRank]:
    """The adapters' low-rank updates by layer name; empty for a network without adapters."""
    return {
        name.removesuffix(f".{ADAPTER}"): module.low_rank()
        for name, module in unet.named_modules()
        if isinstance(module, Adapter)
    }


def merge_adapters(unet: nn.Module) -> None:
    """Add every adapter's update to its layer's weight and remove the adapters."""
    updates = adapter_updates(unet)
    merge_lora(unet, updates)
    for name in updates:
        layer: Any = unet.get_submodule(name)
        layer.lora.hook.remove()
        del layer.lora


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter, by its name."""
    return f".{ADAPTER}." in name


def _add_update(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + layer.lora(inputs[0])


def _is_target(name: str, config: LoraConfig, unet: LoopUNet) -> bool:
    weight = f"{name}.weight"
    if is_idle(weight, unet.config):
        return False
    return any(in_part(weight, target) for target in config.targets)
