"""The few-step weights of a bundle as patches of its MODEL, which ComfyUI applies and takes off again like a LoRA's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import comfy.lora
from torch import Tensor

from loopanimate_core.bundle.few_steps import low_rank_layers, replaced_tensors

from .model import loop_model_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def with_few_steps(model: ModelPatcher) -> ModelPatcher:
    """A clone of a LoopAnimate MODEL with the few-step weights of its bundle; the MODEL itself without any."""
    tensors = loop_model_of(model).few_steps
    if not tensors:
        return model
    model = model.clone()
    model.add_patches(_patches(tensors), 1.0)
    return model


def _patches(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """ComfyUI's patches: low-rank updates of layers, new values of other weights."""
    replaced = replaced_tensors(tensors)
    targets = {layer: f"diffusion_model.{layer}.weight" for layer in low_rank_layers(tensors)}
    targets |= {name: f"diffusion_model.{name}" for name in replaced}
    low_rank = {name: tensor for name, tensor in tensors.items() if name not in replaced}
    new_values = {f"{name}.set_weight": tensor for name, tensor in replaced.items()}
    return comfy.lora.load_lora({**low_rank, **new_values}, targets)
