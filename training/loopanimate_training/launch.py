"""Processes of a run: one alone, several under `accelerate launch` or torchrun, or a Ray cluster's workers."""

from __future__ import annotations

import importlib
import os
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models.layers import MotionModule, ResnetBlock, SpatialTransformer

from .config import ModelConfig, RunConfig

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
        from .shards import shard

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


def train_on_ray(config: RunConfig, workers: int, gpus: bool, *, allow_change: bool = False) -> int:
    """Run the training on `workers` workers of the Ray cluster at hand, or of this machine; returns the exit code.

    Workers that are lost are started again and go on from the newest checkpoint, so the run's folder must
    lie where all of them see it.

    Raises:
        LoopAnimateError: Ray is not installed, or the run itself failed on a mistake of the user's.
    """
    train_module, torch_module = _ray("ray.train"), _ray("ray.train.torch")
    trainer = torch_module.TorchTrainer(
        _ray_worker,
        train_loop_config={"run": config.model_dump(mode="json"), "allow_change": allow_change},
        scaling_config=train_module.ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=train_module.RunConfig(
            name="ray",
            storage_path=str(config.out.resolve()),
            failure_config=train_module.FailureConfig(max_failures=3),
        ),
    )
    metrics = trainer.fit().metrics or {}
    if "mistake" in metrics:
        raise LoopAnimateError(metrics["mistake"])
    return int(metrics.get("exit_code", 0))


def _ray_worker(settings: dict[str, Any]) -> None:
    """One process's share. A mistake of the user's is reported: starting anew would not mend it."""
    from .config import parse
    from .loop import train

    try:
        outcome = train(parse(settings["run"]), allow_change=settings["allow_change"])
        report = {"exit_code": outcome.exit_code}
    except LoopAnimateError as error:
        report = {"mistake": str(error)}
    _ray("ray.train").report(report)


def _ray(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LoopAnimateError(
            "the launcher ray needs Ray, which is not installed: pip install 'ray[train]', or use accelerate launch"
        ) from error
