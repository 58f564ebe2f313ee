"""Few-step weights: what a bundle changes in its UNet so that a handful of steps is enough.

Consistency distillation makes them (Song et al. 2023; Luo et al. 2023). They are an optional part of a bundle, under
`few_steps.`: for a layer's low-rank update `<layer>.lora_down.weight`, `.lora_up.weight` and `.alpha` as in
`lora.py`, and for anything else the new tensor under the parameter's own name.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..errors import LoopAnimateError
from ..models import LoopUNet
from .lora import ALPHA, DOWN, UP, LowRank

PREFIX = "few_steps"


def few_step_tensors(updates: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """Low-rank updates by layer name, as they are stored."""
    tensors: dict[str, Tensor] = {}
    for layer, update in updates.items():
        tensors[layer + DOWN], tensors[layer + UP] = update.down, update.up
        tensors[layer + ALPHA] = torch.tensor(update.alpha)
    return tensors


def low_rank_updates(tensors: Mapping[str, Tensor]) -> dict[str, LowRank]:
    """The low-rank updates among stored tensors, by layer name."""
    return {
        layer: LowRank(
            tensors[layer + DOWN], tensors[layer + UP], float(tensors[layer + ALPHA].item())
        )
        for layer in low_rank_layers(tensors)
    }


def low_rank_layers(names: Iterable[str]) -> list[str]:
    """The layers that have a low-rank update."""
    return sorted(name.removesuffix(DOWN) for name in names if name.endswith(DOWN))


def replaced_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The stored tensors that replace a parameter."""
    ends = (DOWN, UP, ALPHA)
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(ends)}


def require_fit(
    what: str,
    found: Mapping[str, tuple[int, ...]],
    network: Mapping[str, tuple[int, ...]],
) -> None:
    """Check stored shapes against those of the network.

    Raises:
        LoopAnimateError: a tensor does not fit, or is missing.
    """
    layers = low_rank_layers(found)
    expected: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        shape, down = network.get(f"{layer}.weight", ()), found[layer + DOWN]
        rank = down[0] if len(down) == 2 else 0
        if len(shape) != 2 or not rank:
            raise LoopAnimateError(
                f"{what} has an update of {layer!r}, which is not a linear layer or has no rank"
            )
        expected |= {layer + DOWN: (rank, shape[1]), layer + UP: (shape[0], rank)}
        expected[layer + ALPHA] = ()
    for name in sorted(set(found) - set(expected)):
        if name not in network:
            raise LoopAnimateError(f"{what} has an unknown tensor {name!r}")
        expected[name] = network[name]
    for name, shape in expected.items():
        if name not in found:
            raise LoopAnimateError(f"{what} has no tensor {name!r}")
        if tuple(found[name]) != tuple(shape):
            raise LoopAnimateError(
                f"{what}: tensor {name!r} must have shape {list(shape)}, got {list(found[name])}"
            )


@torch.no_grad()
def few_step_unet(unet: LoopUNet, tensors: Mapping[str, Tensor]) -> LoopUNet:
    """A UNet with the few-step weights. It shares every other weight with `unet`, which does not change.

    Args:
        tensors: as stored, on any device; their shapes are checked when a bundle is read or written.
    """
    shared: dict[int, object] = {id(weight): weight for weight in unet.parameters()}
    changed = copy.deepcopy(unet, shared)
    new = dict(replaced_tensors(tensors))
    for layer, update in low_rank_updates(tensors).items():
        weight = unet.get_parameter(f"{layer}.weight")
        new[f"{layer}.weight"] = weight.float() + update.delta().to(weight.device)
    for name, tensor in new.items():
        module, _, parameter = name.rpartition(".")
        old = unet.get_parameter(name)
        setattr(
            changed.get_submodule(module),
            parameter,
            nn.Parameter(tensor.to(old), requires_grad=False),
        )
    return changed
