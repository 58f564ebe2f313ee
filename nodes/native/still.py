"""`filter_flicker` for latents as ComfyUI has them: frames in the batch, not scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from loopanimate_core.sampling import filter_flicker

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def without_flicker(
    model: ModelPatcher, playing: Tensor, positive: list[Any], level: float
) -> Tensor:
    """Remove flicker from places of `playing [P, 4, h, w]` that hardly differ from the still.

    Args:
        positive: the conditioning, which holds the still.
        level: as in `loopanimate_core.sampling.filter_flicker`.
    """
    scale: Any = model.get_model_object("latent_format")
    still = next(options["loop_still"] for _, options in positive if "loop_still" in options)
    z = scale.process_in(playing.transpose(0, 1)[None])  # [1, 4, P, h, w]
    held = filter_flicker(z, scale.process_in(still.to(playing)), level)
    return scale.process_out(held)[0].transpose(0, 1)
