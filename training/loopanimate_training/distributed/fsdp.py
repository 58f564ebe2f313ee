"""FSDP2: weights, gradients, averages and optimiser state sharded over the processes.

Checkpoints always hold full tensors, so a run may resume sharded or not, on any number of processes.
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
    """Shard a model over all processes, in place."""
    mesh = init_device_mesh(device.type, (processes,))
    for module in model.modules():
        if isinstance(module, UNITS):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def full_tensors(value: Any) -> Any:
    """Nested dicts and lists with every tensor gathered and copied to the CPU; all processes must call it."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: full_tensors(item) for key, item in value.items()}
    if isinstance(value, list):
        return [full_tensors(item) for item in value]
    return value


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a full tensor where `like` is sharded, else the tensor."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def shard_optimizer_state(state: dict[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """A full optimiser state with each parameter's tensors sharded as the parameter is."""
    if not any(isinstance(p, DTensor) for p in parameters):
        return state
    shards = {
        index: {
            name: shard_like(value, parameters[index]) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": shards}
