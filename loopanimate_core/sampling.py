"""From noise to a loop: `sample_loop` is the whole algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .closing import Closing
from .conditions import LoopConditions, corrected_velocity, repeat_still
from .errors import LoopAnimateError
from .models import LoopUNet
from .schedule import ScheduleConfig, alphas_cumprod

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (Z_C [1, 9, L, h, w], timestep) -> [1, 4, L, h, w]


@dataclass(frozen=True)
class SamplingDefaults:
    """A model's own best settings.

    Attributes:
        start: in (0, 1], how far into the noise sampling begins.
        hold_still: the level of `filter_flicker`.
    """

    scheduler: str = "dpmpp_2m_lu"
    steps: int = 25
    guidance: float = 7.5
    frames: int = 35
    fps: float = 8.0
    start: float = 1.0
    hold_still: float = 0.0

    def __post_init__(self) -> None:
        require_hold_still(self.hold_still)


FAST = {"scheduler": "dpmpp_2m_lu", "steps": 8}  # the `fast` preset: DDIM's quality at 25 steps


@dataclass(frozen=True)
class StepState:
    """What a callback gets after a step: the clip `x [1, 4, P, h, w]` and the network's prediction."""

    step: int
    steps: int
    timestep: Tensor
    x: Tensor
    prediction: Tensor


def sample_loop(
    denoise: Denoiser,
    x: Tensor,
    scheduler: Any,
    timesteps: Tensor,
    concat: Tensor,
    closing: Closing,
    *,
    generator: torch.Generator | None = None,
    callback: Callable[[StepState], None] | None = None,
) -> Tensor:
    """Denoise a clip so that its last frame flows into its first.

    Args:
        denoise: predicts noise or velocity of a window of frames.
        x: the noisy clip at the first timestep, `[1, 4, P, h, w]`, P = `closing.sampled_frames`.
        scheduler: a diffusers scheduler, its timesteps set.
        concat: [Z_SD, Z_M] of the frames, `[1, 5, ≥P, h, w]`.
        generator: noise of stochastic schedulers.

    Returns:
        The latents of the sampled frames, `[1, 4, P, h, w]`.
    """
    for step, timestep in enumerate(timesteps):
        z_t = scheduler.scale_model_input(x, timestep)
        prediction, total = torch.zeros_like(x), x.new_zeros(x.shape[2])
        for window in closing.windows(step, len(timesteps)):
            indices, weights = window.indices.to(x.device), window.weights.to(x)
            z_c = torch.cat([z_t[:, :, indices], concat[:, :, indices]], dim=1)  # Eq. 11
            seen = denoise(z_c, timestep) * weights[:, None, None]
            prediction.index_add_(2, indices, seen)
            total.index_add_(0, indices, weights)
        prediction /= total[:, None, None]
        x = _step(scheduler, prediction, timestep, x, generator)
        if callback is not None:
            callback(StepState(step, len(timesteps), timestep, x, prediction))
    return x


def guided_denoiser(
    unet: LoopUNet,
    conditions: LoopConditions,
    guidance: float,
    image_guidance: float = 1.0,
    *,
    schedule: ScheduleConfig,
) -> Denoiser:
    """Classifier-free guidance; with text alone (the default) both branches share the down path.

    ε = ε(img, neg) + w·(ε(img, text) - ε(img, neg)), and where `image_guidance` w_i is not 1, ε(img, neg)
    is pushed away from a network that sees no picture in its cross-attention:
    ε(0, neg) + w_i·(ε(img, neg) - ε(0, neg)).
    """
    dtype = unet.conv_in.weight.dtype
    image = conditions.image_embeds.to(dtype)
    negative, positive = conditions.negative_embeds.to(dtype), conditions.text_embeds.to(dtype)
    branches = [positive] if guidance == 1 and image_guidance == 1 else [negative, positive]
    text = unet.prepare_text(torch.cat(branches))
    blind_text = None if image_guidance == 1 else unet.prepare_text(negative)

    def denoise(seen: Tensor, timestep: Tensor) -> Tensor:
        z_c, timestep = seen.to(dtype), timestep.to(seen.device)
        *without, predicted = unet(z_c, timestep, image, text).float().split(1)
        if without:
            base = without[0]
            predicted = base + guidance * (predicted - base)
            if blind_text is not None:
                blind = unet(z_c, timestep, torch.zeros_like(image), blind_text).float()
                predicted = predicted + (image_guidance - 1) * (base - blind)
        return prediction_of(predicted, seen, conditions.z_still, timestep, schedule)

    return denoise


def prediction_of(
    output: Tensor, z_c: Tensor, z_still: Tensor, timestep: Tensor, schedule: ScheduleConfig
) -> Tensor:
    """What a network's output says of noise or velocity: itself, or its correction of the still prior.

    Args:
        output: `[N, 4, F, h, w]`; z_c: `[N or 1, 9, F, h, w]`; z_still: `[N or 1, 4, h, w]`; timestep: a scalar,
            or one for each of Z_C.
    """
    if not schedule.still_prior:
        return output
    alpha_bar = alphas_cumprod(schedule).to(output.device)[timestep.round().long()]
    return corrected_velocity(output, z_c, z_still, alpha_bar, schedule.still_prior)


def filter_flicker(z: Tensor, z_still: Tensor, level: float) -> Tensor:
    """Take the flicker out of places that hardly differ from the still, over the whole loop.

    A Wiener filter of every place's change: r² = mean over frames and channels of (z - z_still)² holds motion
    and flicker, of which flicker has level²; the change is multiplied by what is left, max(0, 1 - level²/r²).
    All frames of a place are treated alike, so what moves keeps its course.

    Args:
        z: latents of a loop, `[N, 4, P, h, w]`; z_still: `[N, 4, h, w]`.
        level: standard deviation of a model's flicker, in latents, 0 … 1; 0 changes nothing.
    """
    require_hold_still(level)
    if level == 0:
        return z
    still = z_still[:, :, None]
    change = z - still
    share = 1 - level**2 / change.square().mean((1, 2), keepdim=True)  # -inf where nothing changes
    return still + share.clamp(min=0) * change


def require_hold_still(level: float) -> None:
    """Raises LoopAnimateError for a level that is none."""
    if not 0 <= level <= 1:
        raise LoopAnimateError(f"hold_still is {level}; it must be 0 (off) to 1")


def prepare_noise(
    z_still: Tensor,
    scheduler: Any,
    steps: int,
    start: float,
    frames: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The start of sampling (Sec. 3.3.1): the still at every frame, noised to the first timestep used.

    Args:
        z_still: `[1, 4, h, w]`.
        start: in (0, 1]; less than 1 skips the first steps, so less noise and less motion.
        frames: frames to sample.
        generator: on the CPU, so that a seed means the same loop on every device.

    Returns:
        The noisy clip `[1, 4, frames, h, w]` and the timesteps to walk.
    """
    if not 0 < start <= 1:
        raise LoopAnimateError(f"start is {start}; it must be above 0 and at most 1")
    if not 1 <= steps <= 1000:
        raise LoopAnimateError(f"steps is {steps}; it must be 1 to 1000")
    scheduler.set_timesteps(steps, device=z_still.device)
    timesteps = scheduler.timesteps
    begin = len(timesteps) - max(1, round(len(timesteps) * start))
    if hasattr(scheduler, "set_begin_index"):  # DDIM needs none: it goes by the timestep's number
        scheduler.set_begin_index(begin)
    z_0 = repeat_still(z_still.float(), frames)
    noise = torch.randn(z_0.shape, generator=generator).to(z_0)
    return scheduler.add_noise(z_0, noise, timesteps[begin : begin + 1]), timesteps[begin:]


def _step(
    scheduler: Any,
    prediction: Tensor,
    timestep: Tensor,
    x: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """diffusers' `step`; only some schedulers take a generator."""
    takes_generator = "generator" in scheduler.step.__code__.co_varnames
    extra = {"generator": generator} if takes_generator else {}
    return scheduler.step(prediction, timestep, x, return_dict=False, **extra)[0]
