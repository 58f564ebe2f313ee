"""A picture and a prompt in, the frames of a loop out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .budget import require_loop_memory
from .bundle import Bundle, find_bundle, mini_bundle_path, read_bundle
from .bundle.lora import merge_lora, read_lora
from .closing import closed
from .conditions import DEFAULT_MOTION, LoopConditions, mask_to_latent
from .encoders.image import encode_image
from .encoders.text import encode_around
from .encoders.vae import decode_latents, encode_frames
from .errors import LoopAnimateError
from .picture.images import Picture, fit_mask, fit_picture, load_picture, require_rgb
from .picture.saliency import salient_mask
from .preconditioning import Preconditioning
from .sampling import (
    StepState,
    filter_flicker,
    guided_denoiser,
    noise_generator,
    prepare_noise,
    sample_loop,
)
from .schedule import make_scheduler
from .settings import SamplingSettings, resolve_settings
from .travel import check_prompt

if TYPE_CHECKING:
    from .detail import DetailLoop

SAME_OBJECT = 0.7  # intersection over union of two masks


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
        source: the still as it was given.
        source_mask: `[H', W']`, the object's mask if it was given, None if it was found.
        residual: how much of what motion cannot explain the model draws well enough to be shown.
        vae: the model's autoencoder.
    """

    frames: Tensor
    latents: Tensor
    fps: float
    seed: int
    mask: Tensor
    picture: Tensor
    source: Picture
    source_mask: Tensor | None = None
    residual: float = 0.0
    vae: Any = field(default=None, repr=False)

    def frames_at(
        self,
        size: str = "original",
        *,
        fps: float | None = None,
        mode: str = "auto",
        residual: float | None = None,
        band: float = 0.12,
        transparent: bool = False,
        plate: Tensor | None = None,
        device: str | torch.device = "cpu",
    ) -> DetailLoop:
        """The same loop in the still's own pixels: frames `[H, W, 3]`, drawn one at a time when asked for.

        Args:
            size, fps, mode, band, transparent: see `DetailSettings`.
            residual: see `DetailSettings`; None takes the model's own.
            plate: `[H, W, 3]` of the still's size, the same scene without the object.
            device: where frames are drawn.

        Raises:
            LoopAnimateError: a setting out of its range.
        """
        from .detail import DetailSettings, transfer  # with OpenCV, which sampling does not need

        residual = self.residual if residual is None else residual
        settings = DetailSettings(mode, residual, band, size, fps, transparent)
        return transfer(
            self.frames,
            self.source,
            _finer_mask(self) if self.source_mask is None else self.source_mask,
            settings,
            frames_fps=self.fps,
            plate=plate,
            autoencoder=None if self.vae is None else self._through_vae,
            device=device,
        )

    def _through_vae(self, frames: Tensor) -> Tensor:
        return decode_latents(self.vae, encode_frames(self.vae, frames))


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
        """Open a bundle, by its path or the name of a fetched model; None is the mini that ships with the package."""
        file = find_bundle(Path(path)) if path else mini_bundle_path()
        return cls(read_bundle(file, device=device, dtype=dtype))

    def add_lora(self, path: str | PathLike[str], strength: float = 1.0) -> None:
        """Add a LoRA file to the weights, for all loops that follow: kohya's, diffusers', or an AnimateDiff motion LoRA.

        Args:
            strength: -10 … 10; 1 is as the LoRA was trained, below 0 the opposite.

        Raises:
            LoopAnimateError: the file is not a LoRA for this model, or a strength out of its range.
        """
        if not -10 <= strength <= 10:
            raise LoopAnimateError(f"a LoRA's strength must be between -10 and 10, got {strength}")
        merge_lora(self.bundle.unet, read_lora(Path(path), self.bundle.unet), strength)

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
        motion: str | None = None,
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
            prompt: what moves and how. `0: a fox bobbing, 12: a fox swaying` travels from one prompt to the next
                round the loop; see `travel`.
            negative_prompt: what should not happen.
            frames: F, the frames the loop is closed over; F-1 play.
            seed: 0 … 2⁶⁴-1; the same seed gives the same loop. None draws one.
            steps: 1 … 1000 denoising steps.
            guidance: how strongly to follow the prompt, 0 … 100; 1 switches guidance off.
            image_guidance: how strongly to follow the image embedding, 0 … 100; 1 switches it off.
            scheduler: a name from `schedule.SCHEDULERS`.
            preset: `best`, or `fast` for few steps: with the model's few-step weights where it has them.
            closing: `tie`, `shift`, `windows` (any length) or `off`.
            start: share of the noise to start with, in (0, 1]; less noise, less motion.
            motion: `small`, `medium` or `large`, only for models with PIA's conditioning.
            hold_still: 0 … 1; flicker weaker than this, in latents, is removed from places that hardly move.
                0 switches it off.
            mask: `[H, W]` with 1 = object, `auto` to find the object, or `none` for the whole picture.
            height_px, width_px: multiples of 8; the picture is cropped to fit. None: those of the model's shape
                nearest to the picture.
            callback: called with a StepState after every step.
            num_frames, guidance_scale, strength: other names for `frames`, `guidance` and `start`, as in
                diffusers.

        Raises:
            LoopAnimateError: a setting out of its range, or a picture that cannot be read. Settings are checked
                before any network runs.
        """
        # 1. Settings: the caller's, else the preset's, else the bundle's
        picture = _as_picture(image)
        settings = resolve_settings(
            self.bundle.config,
            preset=preset,
            picture_px=(picture.height_px, picture.width_px),
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
            motion=motion,
            hold_still=hold_still,
            mask=mask,
            height_px=height_px,
            width_px=width_px,
        )

        for text in (prompt, negative_prompt):
            check_prompt(text, settings.frames)
        weight = next(self.bundle.unet.parameters())
        if weight.device.type == "cpu":  # a GPU says itself that it is full
            require_loop_memory(self.bundle.config, settings, weight.element_size())

        # 2. The picture and its salient object
        still = fit_picture(picture, settings.height_px, settings.width_px)
        object_mask = mask_of(picture, still, settings.mask)

        # 3. Conditions
        conditions = self.encode(
            still, object_mask, prompt, negative_prompt, settings.frames, settings.motion
        )

        # 4. Sampling
        latents = self.sample(conditions, settings, callback)

        # 5. Decoding
        decoded = decode_latents(self.bundle.vae, latents).float().cpu()
        defaults = self.bundle.config.defaults
        return Loop(
            frames=decoded,
            latents=latents.cpu(),
            fps=defaults.fps,
            seed=settings.seed,
            mask=object_mask,
            picture=still,
            source=picture,
            source_mask=_source_mask(picture, settings.mask, object_mask),
            residual=defaults.residual,
            vae=self.bundle.vae,
        )

    @torch.inference_mode()
    def encode(
        self,
        still: Tensor,
        object_mask: Tensor,
        prompt: str,
        negative_prompt: str,
        frames: int,
        motion: str = DEFAULT_MOTION,
    ) -> LoopConditions:
        """What the network reads of `still [H, W, 3]`, `object_mask [H, W]` and the two prompts."""
        bundle = self.bundle
        device = next(bundle.unet.parameters()).device
        z_still = encode_frames(bundle.vae, still[None].to(device))[:, :, 0]
        text, negative = encode_around(
            bundle.tokenizer, bundle.text_encoder, [prompt, negative_prompt], frames - 1
        )
        pixels = still.permute(2, 0, 1)[None].to(device)  # HWC -> BCHW
        return LoopConditions(
            z_still=z_still,
            m_still=mask_to_latent(object_mask[None].to(device), *z_still.shape[2:]).to(z_still),
            image_embeds=_image_embeds(bundle, pixels, text),
            text_embeds=text,
            negative_embeds=negative,
            frames=frames,
            conditioning=bundle.config.conditioning,
            motion=motion,
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
        generator = noise_generator(settings.seed)
        x, timesteps = prepare_noise(
            conditions.z_still,
            scheduler,
            settings.steps,
            settings.start,
            closing.sampled_frames,
            generator,
        )
        denoise = guided_denoiser(
            self.bundle.few_step_unet() if settings.few_steps else self.bundle.unet,
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


def mask_of(picture: Picture, still: Tensor, mask: Tensor | str) -> Tensor:
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
    alpha = None if picture.alpha is None else fit_mask(picture.alpha, height_px, width_px)
    return salient_mask(still, alpha=alpha)


def _image_embeds(bundle: Bundle, pixels: Tensor, text: Tensor) -> Tensor:
    """`[1, T_i, D]`; zeros, which nothing reads, for a model without an image encoder."""
    if bundle.image_encoder is None:
        return text.new_zeros(1, 1, text.shape[-1])
    return encode_image(bundle.image_encoder, pixels)


def _as_picture(image: str | PathLike[str] | Picture | Tensor) -> Picture:
    if isinstance(image, Picture):
        return image
    return Picture(require_rgb(image)) if isinstance(image, Tensor) else load_picture(image)


def _source_mask(picture: Picture, mask: Tensor | str, seen: Tensor) -> Tensor | None:
    """What the caller or the picture says of the object; None if it had to be found. `seen` is the model's."""
    if mask == "auto":
        return picture.alpha
    whole = (picture.height_px, picture.width_px)
    return mask if isinstance(mask, Tensor) and tuple(mask.shape) == whole else seen


def _finer_mask(loop: Loop) -> Tensor:
    """The object at a higher resolution than the model saw it, if it is found to be the same one."""
    from .detail import find_object

    if bool((loop.mask > 0.5).all()):
        return loop.mask
    fine = find_object(loop.source)
    height_px, width_px = loop.mask.shape
    seen, same = loop.mask > 0.5, fit_mask(fine, height_px, width_px) > 0.5
    overlap = float((seen & same).sum() / (seen | same).sum())
    return fine if overlap >= SAME_OBJECT else loop.mask
