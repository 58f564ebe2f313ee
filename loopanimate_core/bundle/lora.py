"""LoRA files for LoopUNet, with kohya's names, which ComfyUI's stock LoRA nodes read.

A file has, for each adapted layer, `lora_unet_<name>.lora_down.weight` (A, `[rank, in]`), `.lora_up.weight`
(B, `[out, rank]`) and `.alpha`, where `<name>` is the layer's name in LoopUNet with `_` for `.`. The layer's
weight becomes W + strength · alpha/rank · B·A.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import LoopAnimateError
from .tensorfile import open_tensors, require_finite, write_tensors

PREFIX = "lora_unet_"
DOWN, UP, ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


@dataclass(frozen=True)
class LowRank:
    """The update of one layer: `down` A `[rank, in]`, `up` B `[out, rank]`."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def delta(self) -> Tensor:
        """alpha/rank · B·A, `[out, in]` float32."""
        return (self.alpha / self.rank) * (self.up.float() @ self.down.float())


def kohya_name(layer: str) -> str:
    """The name of LoopUNet's `layer` (`down_blocks.0.…to_q`) in a LoRA file, without the suffix."""
    return PREFIX + layer.replace(".", "_")


def write_lora(
    path: str | Path,
    updates: Mapping[str, LowRank],
    metadata: Mapping[str, str],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write updates by layer name as a LoRA file, completely or not at all.

    Raises:
        LoopAnimateError: a NaN or infinite value, or a file that cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for layer, update in updates.items():
        name = kohya_name(layer)
        tensors[name + DOWN], tensors[name + UP] = update.down, update.up
        tensors[name + ALPHA] = torch.tensor(update.alpha)
    write_tensors(path, tensors, metadata, dtype)


def read_lora(path: str | Path, unet: nn.Module) -> dict[str, LowRank]:
    """Read the updates of a LoRA file, by the names of `unet`'s layers.

    Raises:
        LoopAnimateError: the file is not a LoRA, is incomplete, or is for layers that `unet` does not have.
    """
    layers = {
        kohya_name(name): name for name, m in unet.named_modules() if isinstance(m, nn.Linear)
    }
    with open_tensors(path) as handle:
        found = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    names = sorted({name.partition(".")[0] for name in found})
    if not any(name.startswith(PREFIX) for name in names):
        raise LoopAnimateError(
            f"{path} is not a LoRA for a UNet: it has no names starting with {PREFIX}"
        )
    for name in found:
        if not name.endswith((DOWN, UP, ALPHA)):
            raise LoopAnimateError(
                f"{path} has a tensor {name!r}, which this kind of LoRA does not have; DoRA, LoHa and LoKr"
                " files cannot be used"
            )
    updates: dict[str, LowRank] = {}
    for name in names:
        if name not in layers:
            raise LoopAnimateError(
                f"{path} is for another network: the UNet has no linear layer {name}"
            )
        if missing := [end for end in (DOWN, UP) if name + end not in found]:
            raise LoopAnimateError(f"{path} has no tensor {name + missing[0]}")
        down, up = found[name + DOWN], found[name + UP]
        updates[layers[name]] = _update(path, name, down, up, found.get(name + ALPHA))
    return updates


def _update(path: str | Path, name: str, down: Tensor, up: Tensor, alpha: Tensor | None) -> LowRank:
    """One update, checked: a rank, and finite numbers."""
    for end, tensor in ((DOWN, down), (UP, up)):
        if tensor.ndim != 2 or not tensor.numel():
            raise LoopAnimateError(
                f"{path}: {name + end} must be a matrix of rank 1 or more, got {list(tensor.shape)}"
            )
        require_finite(name + end, tensor, f"in {path}")
    scale = float(len(down))
    if alpha is not None:
        scale = float(alpha) if alpha.numel() == 1 else math.nan
    if not math.isfinite(scale):
        raise LoopAnimateError(f"{path}: {name + ALPHA} must be one finite number")
    return LowRank(down, up, scale)


@torch.no_grad()
def merge_lora(unet: nn.Module, updates: Mapping[str, LowRank], strength: float = 1.0) -> None:
    """Add `strength` times each update to its layer's weight, in place.

    Raises:
        LoopAnimateError: an update has another shape than its layer's weight; no layer is changed then.
    """
    weights: dict[str, Tensor] = {name: unet.get_parameter(f"{name}.weight") for name in updates}
    for name, update in updates.items():
        shape = (update.up.shape[0], update.down.shape[1])
        if tuple(weights[name].shape) != shape or update.up.shape[1] != update.rank:
            raise LoopAnimateError(
                f"the LoRA's update of {name} must have shape {list(weights[name].shape)}, got {list(shape)}"
            )
    for name, update in updates.items():
        weight = weights[name]
        merged = weight.float() + strength * update.delta().to(weight.device)
        weight.copy_(merged)
