"""FSDP2: weights, gradients, averages and the optimiser's state divided between processes.

What is saved is always whole, so a run may go on sharded or not, on any number of processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from loopanimate_core.models.layers import MotionModule, ResnetBlock, SpatialTransformer

UNITS = (ResnetBlock, SpatialTransformer, MotionModule)  # gathered one at a time


def shard(model: nn.Module, device: torch.device, processes: int) -> nn.Module:
    """Divide a model in place between all processes."""
    mesh = init_device_mesh(device.type, (processes,))
    for module in model.modules():
        if isinstance(module, UNITS):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def whole(value: Any) -> Any:
    """Tensors in nested dicts and lists gathered and copied to the CPU; every process must call it."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


def divided_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor, where `like` is divided."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def divided_state(state: dict[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """An optimiser's whole state with the tensors of each parameter divided as the parameter is."""
    if not any(isinstance(p, DTensor) for p in parameters):
        return state
    shares = {
        index: {
            name: divided_like(value, parameters[index]) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": shares}
