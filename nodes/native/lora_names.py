"""AnimateDiff's motion LoRAs in ComfyUI's own LoRA nodes.

These nodes ask `comfy.lora.model_lora_keys_unet` under which names a file may hold the layers of a model. ComfyUI
knows kohya's and its own, not those of motion modules, and it offers no place to add names. So the function is
replaced by one that adds them for our MODEL, and does what it did for every other.
"""

from __future__ import annotations

import functools
from typing import Any

import comfy.lora

from loopanimate_core.bundle.lora import spellings

_PREFIX, _WEIGHT = "diffusion_model.", ".weight"
_MARK = "_loopanimate_names"


def read_motion_loras() -> None:
    """Let LoRA nodes find the layers of a LoopAnimate MODEL in motion LoRAs and in diffusers' files."""
    original = comfy.lora.model_lora_keys_unet
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def keys(model: Any, *args: Any, **kwargs: Any) -> dict[str, str]:
        from .model import LoopModel

        found = original(model, *args, **kwargs)
        if isinstance(model, LoopModel):
            for name in model.state_dict():
                if name.startswith(_PREFIX) and name.endswith(_WEIGHT):
                    layer = name.removeprefix(_PREFIX).removesuffix(_WEIGHT)
                    found |= {
                        spelling: name for spelling in spellings(layer) if spelling not in found
                    }
        return found

    setattr(keys, _MARK, True)
    comfy.lora.model_lora_keys_unet = keys
