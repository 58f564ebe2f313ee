"""From noise to a loop: `sample_loop` is the whole algorithm."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .closing import Closing, Denoiser, WindowDenoiser, closed
from .conditions import LoopConditions, repeat_still, shown_frames
from .models import LoopUNet
from .preconditioning import Preconditioning
from .schedule import Scheduler


@dataclass(frozen=True)
class StepState:
    """What a callback gets after a step: the clip `x [1, 4, P, h, w]` and the network's prediction."""

    step: int
    steps: int
    timestep: Tensor
    x: Tensor
    prediction: Tensor


def noise_generator(seed: int) -> torch.Generator:
    """The noise of a seed, 0 … 2⁶⁴-1.

    torch's generator on CPUs reads only the lowest 32 bits, so that seeds would repeat every 2³². Larger
    seeds are hashed to 32 bits: any two of them have the same noise with a chance of 2⁻³².
    """
    if seed >= 2**32:
        digest = hashlib.sha256(str(seed).encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
    return torch.Generator().manual_seed(seed)


def sample_loop(
    denoise: Denoiser | Callable[..., Tensor],
    x: Tensor,
    scheduler: Scheduler,
    timesteps: Tensor,
    concat: Tensor | None = None,
    closing: Closing | None = None,
    *,
    generator: torch.Generator | None = None,
    callback: Callable[[StepState], None] | None = None,
) -> Tensor:
    """Denoise a clip step by step.

    Args:
        denoise: predicts the noise or velocity of the sampled frames. It closes the loop:
            see `closing.closed`.
        x: the noisy clip at the first timestep, `[1, 4, P, h, w]`.
        scheduler: a diffusers scheduler with its timesteps set.
        concat, closing: for a `denoise(z_c, timestep)` of windows Z_C `[1, 9, L, h, w]`: [Z_SD, Z_M] of the
            frames, `[1, 5, ≥P, h, w]`, and how the loop is closed.
        generator: noise of stochastic schedulers.
        callback: called after every step.

    Returns:
        The latents of the sampled frames, `[1, 4, P, h, w]`.
    """
    if concat is not None and closing is not None:
        denoise = closed(_reading(denoise, concat), closing, len(timesteps))
    stochastic = "generator" in inspect.signature(scheduler.step).parameters
    options = {"generator": generator} if stochastic else {}
    for step, timestep in enumerate(timesteps):
        z_t = scheduler.scale_model_input(x, timestep)
        prediction = denoise(z_t, timestep, step)
        x = scheduler.step(prediction, timestep, x, return_dict=False, **options)[0]
        if callback is not None:
            callback(StepState(step, len(timesteps), timestep, x, prediction))
    return x


def guided_denoiser(
    unet: LoopUNet,
    conditions: LoopConditions,
    guidance: float,
    image_guidance: float = 1.0,
    *,
    preconditioning: Preconditioning,
) -> WindowDenoiser:
    """Classifier-free guidance; with text alone (the default) both branches share the down path.

    ε = ε(img, neg) + w·(ε(img, text) - ε(img, neg)), and where `image_guidance` w_i is not 1, ε(img, neg)
    is pushed away from a network that sees no picture in its cross-attention:
    ε(0, neg) + w_i·(ε(img, neg) - ε(0, neg)).
    """
    dtype = unet.conv_in.weight.dtype
    image = conditions.image_embeds.to(dtype)
    negative, positive = conditions.negative_embeds.to(dtype), conditions.text_embeds.to(dtype)
    branches = [positive] if guidance == 1 and image_guidance == 1 else [negative, positive]
    text = unet.prepare_text(torch.cat(for_the_same_frames(branches)))
    blind_text = None if image_guidance == 1 else unet.prepare_text(negative)
    z_still, concat = conditions.z_still, conditions.concat()
    shown = shown_frames(conditions.frames).to(z_still.device)
    playing = conditions.frames - 1

    def denoise(z_t: Tensor, timestep: Tensor, frames: Tensor) -> Tensor:
        z_c = torch.cat([z_t, concat[:, :, frames]], dim=1).to(dtype)  # Eq. 11
        timestep = timestep.to(z_c.device)
        read = frames % playing  # the last frame is the first one again
        *without, output = unet(z_c, timestep, image, text.at(read)).float().split(1)
        if without:
            base = without[0]
            output = base + guidance * (output - base)
            if blind_text is not None:
                blind = unet(z_c, timestep, torch.zeros_like(image), blind_text.at(read)).float()
                output = output + (image_guidance - 1) * (base - blind)
        alpha_bar = preconditioning.alpha_bar(timestep)
        return preconditioning.prediction(output, z_t, z_still, alpha_bar, shown[frames])

    return denoise


def for_the_same_frames(texts: Sequence[Tensor]) -> list[Tensor]:
    """Texts `[N, T, D]`; if one of them is `[N, P, T, D]`, with a text for each frame, all in that form."""
    per_frame = next((text for text in texts if text.ndim == 4), None)
    if per_frame is None:
        return list(texts)
    frames = per_frame.shape[1]
    return [t if t.ndim == 4 else t[:, None].expand(-1, frames, -1, -1) for t in texts]


def prepare_noise(
    z_still: Tensor,
    scheduler: Scheduler,
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
        generator: on the CPU, so that a seed gives the same loop on every device.

    Returns:
        The noisy clip `[1, 4, frames, h, w]` and the timesteps to walk.
    """
    scheduler.set_timesteps(steps, device=z_still.device)
    timesteps = scheduler.timesteps
    begin = len(timesteps) - max(1, round(len(timesteps) * start))
    if set_begin_index := getattr(scheduler, "set_begin_index", None):
        set_begin_index(begin)
    z_0 = repeat_still(z_still.float(), frames)
    noise = torch.randn(z_0.shape, generator=generator).to(z_0)
    return scheduler.add_noise(z_0, noise, timesteps[begin : begin + 1]), timesteps[begin:]


def filter_flicker(z: Tensor, z_still: Tensor, level: float) -> Tensor:
    """Remove flicker from places that hardly differ from the still, over the whole loop.

    A Wiener filter of every place's change: r² = mean over frames and channels of (z - z_still)² holds motion
    and flicker, of which flicker has level²; the change is multiplied by the rest, max(0, 1 - level²/r²).
    All frames of a place get the same factor, so motion keeps its path.

    Args:
        z: latents of a loop, `[N, 4, P, h, w]`.
        z_still: `[N, 4, h, w]`.
        level: standard deviation of a model's flicker, in latents, 0 … 1; 0 changes nothing.
    """
    if level == 0:
        return z
    still = z_still[:, :, None]
    change = z - still
    share = 1 - level**2 / change.square().mean((1, 2), keepdim=True)  # -inf where nothing changes
    return still + share.clamp(min=0) * change


def _reading(denoise: Callable[..., Tensor], concat: Tensor) -> WindowDenoiser:
    """A denoiser of Z_C as a denoiser of Z_t, with the condition put beside it."""

    def denoise_window(z_t: Tensor, timestep: Tensor, frames: Tensor) -> Tensor:
        return denoise(torch.cat([z_t, concat[:, :, frames]], dim=1), timestep)

    return denoise_window
