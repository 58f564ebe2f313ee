"""A checkpoint of a few numbers."""

from __future__ import annotations

import torch

from loopanimate_training.storage.checkpoint import Checkpoint


def make(step: int, size: int = 100) -> Checkpoint:
    weights = {"unet.a": torch.full((size,), float(step))}
    optimizer = {
        "state": {0: {"exp_avg": torch.full((size,), 2.0 * step)}},
        "param_groups": [{"params": [0]}],
    }
    return Checkpoint(step, {"seed": 1}, weights, {"unet.a": weights["unet.a"] + 1}, optimizer, 0.5)
