"""A picture and a prompt in, the frames of a loop out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from .bundle import Bundle, mini_bundle_path, read_bundle
from .closing import closed
from .conditions import LoopConditions, mask_to_latent
from .encoders.image import encode_image
from .encoders.text import encode_prompts
from .encoders.vae import decode_latents, encode_frames
from .picture.images import Picture, fit_mask, fit_picture, load_picture
from .picture.saliency import salient_mask
from .preconditioning import Preconditioning
from .sampling import StepState, filter_flicker, guided_denoiser, prepare_noise, sample_loop
from .schedule import make_scheduler
from .settings import SamplingSettings, resolve_settings


@dataclass(frozen=True)
class Loop:
    """A finished loop.

    Attributes:
        frames: `[P, H, W, 3]` in 0..1, the frames that play: after the last comes the first.
        latents: `[1, 4, P, h, w]`.
        fps: the speed the model was trained for.
        seed: gives the same loop again.
        mask: `[H, W]`, 1 on the object that moves.
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
        num_frames: int | None = None,
        guidance_scale: float | None = None,
        strength: float | None = None,
    ) -> Loop:
        """Animate a still picture.

        A setting that is None comes from the preset, then from the bundle.

        Args:
            image: a file, a Picture, or `[H, W, 3]` in 0..1.
            prompt: what moves and how.
            negative_prompt: what should not happen.
            frames: F, the frames the loop is closed over; F-1 play.
            seed: 0 … 2⁶⁴-1; the same seed gives the same loop. None draws one.
            steps: 1 … 1000 denoising steps.
            guidance: how strongly to follow the prompt, 0 … 100; 1 switches guidance off.
            image_guidance: how strongly to follow the image embedding, 0 … 100; 1 switches it off.
            scheduler: a name from `schedule.SCHEDULERS`.
            preset: `best`, or `fast` for a draft in few steps.
            closing: `tie`, `shift`, `windows` (any length) or `off`.
            start: share of the noise to start with, in (0, 1]; less noise, less motion.
            hold_still: 0 … 1; flicker weaker than this, in latents, is removed from places that hardly move.
                0 switches it off.
            mask: `[H, W]` with 1 = object, `auto` to find the object, or `none` for the whole picture.
            height_px, width_px: multiples of 8; the picture is cropped to fit.
            callback: called with a StepState after every step.
            num_frames, guidance_scale, strength: other names for `frames`, `guidance` and `start`, as in
                diffusers.

        Raises:
            LoopAnimateError: a setting out of its range, or a picture that cannot be read. Settings are checked
                before any network runs.
        """
        # 1. Settings: the caller's, else the preset's, else the bundle's
        settings = resolve_settings(
            self.bundle.config,
            preset=preset,
            seed=seed,
            frames=frames,
            num_frames=num_frames,
            steps=steps,
            guidance=guidance,
            guidance_scale=guidance_scale,
            image_guidance=image_guidance,
            scheduler=scheduler,
            closing=closing,
            start=start,
            strength=strength,
            hold_still=hold_still,
            mask=mask,
            height_px=height_px,
            width_px=width_px,
        )

        # 2. The picture and its salient object
        picture = image if isinstance(image, (Picture, Tensor)) else load_picture(image)
        still = fit_picture(picture, settings.height_px, settings.width_px)
        object_mask = find_object(picture, still, settings.mask)

        # 3. Conditions
        conditions = self.encode(still, object_mask, prompt, negative_prompt, settings.frames)

        # 4. Sampling
        latents = self.sample(conditions, settings, callback)

        # 5. Decoding
        decoded = decode_latents(self.bundle.vae, latents).float().cpu()
        fps = self.bundle.config.defaults.fps
        return Loop(decoded, latents.cpu(), fps, settings.seed, object_mask, still)

    @torch.inference_mode()
    def encode(
        self, still: Tensor, object_mask: Tensor, prompt: str, negative_prompt: str, frames: int
    ) -> LoopConditions:
        """What the network reads of `still [H, W, 3]`, `object_mask [H, W]` and the two prompts."""
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

    @torch.inference_mode()
    def sample(
        self,
        conditions: LoopConditions,
        settings: SamplingSettings,
        callback: Callable[[StepState], None] | None = None,
    ) -> Tensor:
        """The latents `[1, 4, F-1, h, w]` of the frames that play."""
        config, closing = self.bundle.config, settings.closing
        scheduler = make_scheduler(settings.scheduler, config.schedule)
        generator = torch.Generator().manual_seed(settings.seed)
        x, timesteps = prepare_noise(
            conditions.z_still,
            scheduler,
            settings.steps,
            settings.start,
            closing.sampled_frames,
            generator,
        )
        denoise = guided_denoiser(
            self.bundle.unet,
            conditions,
            settings.guidance,
            settings.image_guidance,
            preconditioning=Preconditioning(config.schedule),
        )
        latents = sample_loop(
            closed(denoise, closing, len(timesteps)),
            x,
            scheduler,
            timesteps,
            generator=generator,
            callback=callback,
        )
        playing = latents[:, :, : settings.frames - 1]
        return filter_flicker(playing, conditions.z_still, settings.hold_still)


def find_object(picture: Picture | Tensor, still: Tensor, mask: Tensor | str) -> Tensor:
    """The mask `[H, W]` at the size of `still [H, W, 3]`, 1 on the object.

    Args:
        picture: the whole picture, which a given mask or its own alpha belongs to.
        mask: as in SamplingSettings.
    """
    height_px, width_px = still.shape[:2]
    if isinstance(mask, Tensor):
        return fit_mask(mask, height_px, width_px)
    if mask == "none":
        return torch.ones(height_px, width_px)
    alpha = picture.alpha if isinstance(picture, Picture) else None
    fitted = None if alpha is None else fit_mask(alpha, height_px, width_px)
    return salient_mask(still, alpha=fitted)
