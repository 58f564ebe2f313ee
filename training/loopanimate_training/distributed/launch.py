"""Processes of a run: one alone, or several under `accelerate launch`, torchrun or Ray (`on_ray.py`)."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models.layers import MotionModule, ResnetBlock, SpatialTransformer

from ..config import ModelConfig, RunConfig

PATIENCE = timedelta(hours=2)  # of processes that wait for the first one to draw a sheet, say


def start_processes(config: RunConfig) -> Accelerator:
    """This process's place among the others; precision is the run's own matter, not the launcher's."""
    return Accelerator(
        mixed_precision="no",
        cpu=config.device == "cpu",
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=PATIENCE),
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
        ],
    )


def wants_shards(accelerator: Accelerator) -> bool:
    """Whether the launcher's configuration asks for FSDP2 (`training/launch/fsdp2.yaml`).

    Raises:
        LoopAnimateError: it asks for the older FSDP.
    """
    if accelerator.num_processes == 1 or os.environ.get("ACCELERATE_USE_FSDP") != "true":
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise LoopAnimateError("FSDP of version 1 is not supported; set fsdp_version to 2")
    return True


def distribute(accelerator: Accelerator, model: nn.Module) -> Any:
    """The model for several processes: divided between them, or a copy each."""
    if wants_shards(accelerator):
        from .fsdp import shard

        return shard(model, accelerator.device, accelerator.num_processes)
    return accelerator.prepare_model(model)


def use_memory_settings(unet: Any, config: ModelConfig) -> None:
    """Recomputing, chunks and compilation: what costs or saves memory and time, and changes no result."""
    unet.gradient_checkpointing = config.gradient_checkpointing
    unet.chunk_frames, unet.chunk_pixels = config.chunk_frames, config.chunk_pixels
    if config.compile is not None:
        for module in unet.modules():
            if isinstance(module, ResnetBlock | SpatialTransformer | MotionModule):
                _compile(module, config.compile)


def _compile(module: nn.Module, backend: str) -> None:
    from torch._dynamo.exc import InvalidBackend  # slow to import, and rarely needed

    try:
        module.compile(backend=backend)
    except InvalidBackend as error:
        raise LoopAnimateError(
            f"model.compile is {backend!r}; choose one of {', '.join(torch.compiler.list_backends())}"
        ) from error
