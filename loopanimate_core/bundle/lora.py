"""LoRA files for LoopUNet: written with kohya's names, which ComfyUI's stock LoRA nodes read, and read with all.

A file of kohya's layout has, for each adapted layer, `lora_unet_<name>.lora_down.weight` (A, `[rank, in]`), `.lora_up.weight`
(B, `[out, rank]`) and `.alpha`, where `<name>` is the layer's name in LoopUNet with `_` for `.`. The layer's
weight becomes W + strength · alpha/rank · B·A. AnimateDiff's motion LoRAs, and those of diffusers and PEFT, have other names
and no alpha, which means alpha = rank (`spellings`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import LoopAnimateError
from .tensorfile import read_tensors, require_finite, write_tensors

PREFIX = "lora_unet_"
DOWN, UP, ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"
ENDS = {
    DOWN: DOWN,
    UP: UP,
    ALPHA: ALPHA,
    ".lora_A.weight": DOWN,
    ".lora_B.weight": UP,
    ".lora.down.weight": DOWN,
    ".lora.up.weight": UP,
    "_lora.down.weight": DOWN,
    "_lora.up.weight": UP,
}
"""How the names of tensors end, in kohya's layout, PEFT's, diffusers' and AnimateDiff's."""


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


def spellings(layer: str) -> list[str]:
    """The names, without their ends, that LoopUNet's `layer` may have in a LoRA file.

    kohya's; diffusers' and PEFT's, alone or with a prefix; for motion modules AnimateDiff's too, as in
    `….temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q`.
    """
    names = [kohya_name(layer), layer, f"unet.{layer}", f"diffusion_model.{layer}"]
    if "motion_modules." in layer:
        original = re.sub(r"(motion_modules\.\d+\.)", r"\1temporal_transformer.", layer)
        original = re.sub(
            r"\.attn([12])\.", lambda m: f".attention_blocks.{int(m[1]) - 1}.", original
        )
        for name in (layer, original):
            parent, _, last = name.rpartition(".")
            names.append(f"{parent}.processor.{last}")
            if parent.endswith(".to_out"):
                names.append(f"{parent.removesuffix('.to_out')}.processor.to_out")
    return names


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
    """Read the updates of a LoRA file of any layout in `spellings`, by the names of `unet`'s layers.

    Raises:
        LoopAnimateError: the file is not a LoRA, is incomplete, or is for layers that `unet` does not have.
    """
    layers = {
        name: layer
        for layer, module in unet.named_modules()
        if isinstance(module, nn.Linear)
        for name in spellings(layer)
    }
    tensors = read_tensors(path)
    ends = {name: next((end for end in ENDS if name.endswith(end)), None) for name in tensors}
    if not any(end is not None and ENDS[end] != ALPHA for end in ends.values()):
        raise LoopAnimateError(f"{path} is not a LoRA: it has no names ending with {DOWN}")
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        end = ends[name]
        if end is None:
            raise LoopAnimateError(
                f"{path} has a tensor {name!r}, which this kind of LoRA does not have; DoRA, LoHa and LoKr"
                " files cannot be used"
            )
        found.setdefault(name.removesuffix(end), {})[ENDS[end]] = tensor
    updates: dict[str, LowRank] = {}
    for name in sorted(found):
        if name not in layers:
            raise LoopAnimateError(
                f"{path} is for another network: the UNet has no linear layer {name}"
            )
        if missing := [end for end in (DOWN, UP) if end not in found[name]]:
            raise LoopAnimateError(f"{path} has no tensor {name + missing[0]}")
        parts = found[name]
        updates[layers[name]] = _update(path, name, parts[DOWN], parts[UP], parts.get(ALPHA))
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
