"""The still of a loop at any latent size, and `filter_flicker` for latents as ComfyUI has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import comfy.model_management
import torch
from torch import Tensor

from loopanimate_core.conditions import mask_to_latent
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture import SIZE_MULTIPLE_PX
from loopanimate_core.picture.images import fit_mask, fit_picture
from loopanimate_core.sampling import filter_flicker

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


class StillSource:
    """A picture, its mask and the VAE: the still can be encoded again for latents of another size.

    Latents of a still must not be enlarged: they would decode to a dark, smeared picture.

    Attributes:
        picture: `[H, W, 3]` in 0..1.
        mask: `[H, W]`, 1 = object, or None for the whole picture.
    """

    def __init__(self, picture: Tensor, mask: Tensor | None, vae: Any) -> None:
        self.picture, self.mask, self.vae = picture, mask, vae
        self._encoded: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def encode(self, height_px: int, width_px: int) -> tuple[Tensor, Tensor]:
        """The still `[1, 4, h, w]` and the object `[1, 1, h, w]` in {0, 1}, both at latent size.

        Raises:
            LoopAnimateError: the VAE is not one of four channels, or nothing of the object is left.
        """
        if (height_px, width_px) not in self._encoded:
            fitted = fit_picture(self.picture, height_px, width_px)
            still = self.vae.encode(fitted[None])
            if still.ndim != 4 or still.shape[1] != 4:
                raise LoopAnimateError(
                    f"the VAE's latents have the shape {list(still.shape)}; connect the VAE of Load LoopAnimate"
                )
            mask = self._object(height_px, width_px, still.shape[-2:])
            self._encoded = {(height_px, width_px): (still, mask)}
        return self._encoded[(height_px, width_px)]

    def _object(self, height_px: int, width_px: int, size: torch.Size) -> Tensor:
        if self.mask is None:
            return torch.ones(1, 1, *size)
        fitted = mask_to_latent(fit_mask(self.mask, height_px, width_px)[None], *size)
        if not fitted.any():
            raise LoopAnimateError(
                "the mask is empty, so nothing would move; 1 must be the object (in Load Image's mask 1 is"
                " transparent: use Salient Mask in between)"
            )
        return fitted


def still_and_mask(
    prompt: Mapping[str, Any], size: torch.Size | tuple[int, int], pixels_per_latent: int
) -> tuple[Tensor, Tensor]:
    """Still `[1, 4, h, w]` and object `[1, 1, h, w]` of a prompt for latents of `size`, encoded again if need be.

    Raises:
        LoopAnimateError: it would have to be encoded again, and cannot.
    """
    still, mask = prompt["loop_still"], prompt["loop_mask"]
    if still.shape[-2:] == tuple(size):
        return still, mask
    source: StillSource | None = prompt.get("loop_source")
    height_px, width_px = (side * pixels_per_latent for side in size)
    if source is None or height_px % SIZE_MULTIPLE_PX or width_px % SIZE_MULTIPLE_PX:
        built, given = (
            f"{pixels_per_latent * s[1]} x {pixels_per_latent * s[0]}"
            for s in (still.shape[-2:], size)
        )
        raise LoopAnimateError(
            f"the latent is for {given} pixels, but the prompts were built for {built}; use a second"
            " Build Loop Conditions for the size of the latent"
        )
    loaded = comfy.model_management.loaded_models(only_currently_used=True)
    encoded = source.encode(height_px, width_px)
    comfy.model_management.load_models_gpu(loaded)  # the VAE may have taken the model's place
    return encoded


def without_flicker(
    model: ModelPatcher, playing: Tensor, positive: list[Any], level: float
) -> Tensor:
    """Remove flicker from places of `playing [P, 4, h, w]` that hardly differ from the still.

    Args:
        positive: the conditioning, which holds the still.
        level: as in `loopanimate_core.sampling.filter_flicker`.
    """
    if level == 0:
        return playing
    scale: Any = model.get_model_object("latent_format")
    pixels_per_latent = model.get_model_object("diffusion_model").pixels_per_latent
    prompt = next(options for _, options in positive if "loop_still" in options)
    still, _mask = still_and_mask(prompt, playing.shape[-2:], pixels_per_latent)
    z = scale.process_in(playing.transpose(0, 1)[None])  # [1, 4, P, h, w]
    held = filter_flicker(z, scale.process_in(still.to(playing)), level)
    return scale.process_out(held)[0].transpose(0, 1)
