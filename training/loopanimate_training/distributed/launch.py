"""The processes of a run: a single one, or several under `accelerate launch`, torchrun or Ray."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from loopanimate_core.errors import LoopAnimateError

from ..config import RunConfig

TIMEOUT = timedelta(hours=2)  # of processes that wait for another, which validates or saves


def make_accelerator(config: RunConfig) -> Accelerator:
    """This process's `Accelerator`. Precision is a setting of the run, so the launcher's is not used."""
    return Accelerator(
        mixed_precision="no",
        cpu=config.device == "cpu",
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=TIMEOUT),
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
        ],
    )


def uses_fsdp(accelerator: Accelerator) -> bool:
    """Whether the launcher's configuration asks for FSDP2 (`training/launch/fsdp2.yaml`).

    Raises:
        LoopAnimateError: it asks for version 1 of FSDP.
    """
    if accelerator.num_processes == 1 or os.environ.get("ACCELERATE_USE_FSDP") != "true":
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise LoopAnimateError("FSDP version 1 is not supported; set fsdp_version to 2")
    return True


def wrap_model(accelerator: Accelerator, model: nn.Module) -> Any:
    """The model for several processes: sharded (FSDP2), or a copy in each (DDP)."""
    if uses_fsdp(accelerator):
        from .fsdp import shard

        return shard(model, accelerator.device, accelerator.num_processes)
    return accelerator.prepare_model(model)
