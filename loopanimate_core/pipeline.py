"""A picture and a prompt in, the frames of a loop out."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from .bundle import Bundle, mini_bundle_path, read_bundle
from .closing import Closing
from .conditions import LoopConditions, mask_to_latent
from .encoders.image import encode_image
from .encoders.text import encode_prompts
from .encoders.vae import decode_latents, encode_frames
from .errors import LoopAnimateError
from .picture.images import Picture, fit_mask, fit_picture, load_picture
from .picture.saliency import salient_mask
from .sampling import (
    FAST,
    StepState,
    filter_flicker,
    guided_denoiser,
    prepare_noise,
    require_hold_still,
    sample_loop,
)
from .schedule import make_scheduler

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Loop:
    """A finished loop.

    Attributes:
        frames: `[P, H, W, 3]` in 0..1, the frames that play: after the last comes the first.
        latents: `[1, 4, P, h, w]`.
        fps: the speed the model was trained for.
        seed: what to pass for the same loop again.
        mask: `[H, W]`, the salient object that the model was told.
        picture: `[H, W, 3]`, the still as the model saw it.
    """

    frames: Tensor
    latents: Tensor
    fps: float
    seed: int
    mask: Tensor
    picture: Tensor


class LoopAnimatePipeline:
    """`LoopAnimatePipeline.from_bundle()("cat.png", "a cat bobbing up and down").frames`."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @classmethod
    def from_bundle(
        cls,
        path: str | PathLike[str] | None = None,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> LoopAnimatePipeline:
        """Open a bundle file; without a path, the mini model that ships with the package."""
        return cls(
            read_bundle(Path(path) if path else mini_bundle_path(), device=device, dtype=dtype)
        )

    @torch.inference_mode()
    def __call__(
        self,
        image: str | PathLike[str] | Picture | Tensor,
        prompt: str,
        *,
        negative_prompt: str = "",
        frames: int | None = None,
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        image_guidance: float = 1.0,
        scheduler: str | None = None,
        preset: str = "best",
        closing: str = "tie",
        start: float | None = None,
        hold_still: float | None = None,
        mask: Tensor | str = "auto",
        height_px: int | None = None,
        width_px: int | None = None,
        callback: Callable[[StepState], None] | None = None,
    ) -> Loop:
        """Animate a still picture.

        Settings left at None are the bundle's own best ones.

        Args:
            image: a file, a Picture, or `[H, W, 3]` in 0..1.
            prompt: what moves and how.
            frames: F, the frames the loop is closed over; F-1 play.
            seed: 0 … 2⁶³-1; the same seed gives the same loop. None draws one.
            guidance: how strongly the prompt is followed; 1 switches guidance off.
            image_guidance: how strongly the image embedding is followed; 1 switches it off.
            preset: `best`, or `fast` for few steps.
            closing: `tie`, `shift`, `windows` (any length) or `off`.
            start: in (0, 1]; less noise, less motion.
            hold_still: 0 … 1; flicker below this, in latents, is taken out of places that hardly move. 0: off.
            mask: `[H, W]` with 1 = object, `auto` to find the salient object, `none` for the whole picture.
            height_px, width_px: multiples of the VAE's patch; the picture is cropped to fit.
            callback: called with a StepState after every step.

        Raises:
            LoopAnimateError: a setting out of its range, or a picture that cannot be read.
        """
        # 1. Settings: the caller's, else the bundle's own
        bundle, own = self.bundle, self.bundle.config.defaults
        chosen = FAST if preset == "fast" else {"scheduler": own.scheduler, "steps": own.steps}
        if preset not in ("best", "fast"):
            raise LoopAnimateError(f"preset is {preset!r}; choose best or fast")
        frames = own.frames if frames is None else frames
        seed = secrets.randbelow(2**32) if seed is None else seed
        if not 0 <= seed <= MAX_SEED:
            raise LoopAnimateError(f"seed is {seed}; it must be 0 to {MAX_SEED}")
        level = own.hold_still if hold_still is None else hold_still
        require_hold_still(level)
        height_px, width_px = (
            height_px or bundle.config.height_px,
            width_px or bundle.config.width_px,
        )

        # 2. The picture and its salient object
        picture = image if isinstance(image, (Picture, Tensor)) else load_picture(image)
        still = fit_picture(picture, height_px, width_px)
        object_mask = self._mask(picture, still, mask)

        # 3. Conditions
        conditions = self.encode(still, object_mask, prompt, negative_prompt, frames)

        # 4. The noisy start
        closed = Closing(closing, frames, bundle.config.window_frames(frames))
        sampler = make_scheduler(scheduler or str(chosen["scheduler"]), bundle.config.schedule)
        generator = torch.Generator().manual_seed(seed)
        x, timesteps = prepare_noise(
            conditions.z_still,
            sampler,
            int(chosen["steps"]) if steps is None else steps,
            own.start if start is None else start,
            closed.sampled_frames,
            generator,
        )

        # 5. Sampling and decoding
        denoise = guided_denoiser(
            bundle.unet,
            conditions,
            own.guidance if guidance is None else guidance,
            image_guidance,
            schedule=bundle.config.schedule,
        )
        latents = sample_loop(
            denoise,
            x,
            sampler,
            timesteps,
            conditions.concat(),
            closed,
            generator=generator,
            callback=callback,
        )[:, :, : frames - 1]
        latents = filter_flicker(latents, conditions.z_still, level)
        decoded = decode_latents(bundle.vae, latents).float().cpu()
        return Loop(decoded, latents.cpu(), own.fps, seed, object_mask, still)

    def encode(
        self, still: Tensor, object_mask: Tensor, prompt: str, negative_prompt: str, frames: int
    ) -> LoopConditions:
        """What the network is told: `still [H, W, 3]`, `object_mask [H, W]` and the two prompts."""
        bundle = self.bundle
        device = next(bundle.unet.parameters()).device
        z_still = encode_frames(bundle.vae, still[None].to(device))[:, :, 0]
        text = encode_prompts(bundle.tokenizer, bundle.text_encoder, [prompt, negative_prompt])
        pixels = still.permute(2, 0, 1)[None].to(device)  # HWC -> BCHW
        return LoopConditions(
            z_still=z_still,
            m_still=mask_to_latent(object_mask[None].to(device), *z_still.shape[2:]).to(z_still),
            image_embeds=encode_image(bundle.image_encoder, pixels),
            text_embeds=text[:1],
            negative_embeds=text[1:],
            frames=frames,
        )

    def _mask(self, picture: Picture | Tensor, still: Tensor, mask: Tensor | str) -> Tensor:
        height_px, width_px = still.shape[:2]
        if isinstance(mask, Tensor):
            return fit_mask(mask, height_px, width_px)
        if mask == "none":
            return torch.ones(height_px, width_px)
        if mask != "auto":
            raise LoopAnimateError(f"mask is {mask!r}; give a tensor, 'auto' or 'none'")
        alpha = picture.alpha if isinstance(picture, Picture) else None
        alpha = alpha if alpha is None else fit_mask(alpha, height_px, width_px)
        return salient_mask(still, alpha=alpha)
