"""Latent consistency distillation (Song et al. 2023; Luo et al. 2023): a few steps instead of many.

The student learns one function f(z_t, t) of the teacher's guided sampling path, its clean end:

    f(z_t, t) = f⁻(z_s, s),  s = t - k,  z_s from z_t by the teacher (DDIM, with guidance),  f(z, -1) = z.

f⁻ is the averaged student, without gradients. With k = 0 the student learns the teacher's guided x_0 at t itself
(guidance distillation, Meng et al. 2023): steps of any sampler without a second branch, but not fewer of them. f is x_0 as the network's output gives it. That is the identity where
there is no noise, so no other boundary condition is needed, and any sampler that asks a network for x_0 can use it.

Clips look as they do when a loop is sampled: the turning frame is not shown, the frames that Z_SD shows are the still
exactly, both ends have the same noise, and the noisiest clips are the noised still from which sampling starts.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from loopanimate_core import conditions
from loopanimate_core.bundle import Bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNet
from loopanimate_core.preconditioning import Preconditioning, add_noise
from loopanimate_core.schedule import ScheduleConfig

from ..config import DistilConfig, RunConfig
from ..data.batch import Batch
from ..optimizer import Ema
from .start import open_start

CLEAN = -1  # the timestep without noise


@dataclass(frozen=True)
class Clips:
    """What the network reads of clips besides z_t.

    Attributes:
        z_still: `[N, 4, h, w]`.
        concat: [Z_SD, Z_M] as in sampling, `[N, 5, F, h, w]`.
        image_embeds: `[N, T_i, D]`.
        text: `[N, T_t, D]`.
    """

    z_still: Tensor
    concat: Tensor
    image_embeds: Tensor
    text: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Clips:
        z_still, frames = batch.latents[:, :, 0], batch.latents.shape[2]
        z_m = conditions.semantic_mask(batch.masks[:, 0], frames)
        concat = torch.cat([conditions.stack_static_dynamic(z_still, frames), z_m], dim=1)
        return cls(z_still, concat, batch.image_embeds, batch.text)


def open_teacher(config: RunConfig, start: Bundle) -> LoopUNet:
    """The frozen teacher of a run: `distil.teacher`, else a copy of the run's start; before it trains or resumes.

    Raises:
        LoopAnimateError: the teacher was trained on another noise schedule or for other conditions.
    """
    assert config.distil is not None
    if config.distil.teacher is None:
        teacher = copy.deepcopy(start.unet)
    else:
        model = config.model.model_copy(
            update={"start": config.distil.teacher, "lora": None, "unet": None}
        )
        bundle = open_start(model, config.seed)
        if bundle.config.schedule != start.config.schedule:
            raise LoopAnimateError(
                f"distil.teacher {config.distil.teacher} has another noise schedule than the student"
            )
        theirs, ours = (one.config.unet.cross_attention_dim for one in (bundle, start))
        if theirs != ours:
            raise LoopAnimateError(
                f"distil.teacher must have conditions of width {ours}, as the student has, got {theirs}"
            )
        teacher = bundle.unet
    return teacher.requires_grad_(False).eval()


@torch.no_grad()
def empty_prompt(bundle: Bundle) -> Tensor:
    """The text encoder's states of the empty prompt, `[1, T, D]`."""
    length = bundle.text_encoder.config.max_position_embeddings
    tokens = bundle.tokenizer.padded([""], length)
    encoded: Any = bundle.text_encoder(tokens.to(next(bundle.text_encoder.parameters()).device))
    return encoded.last_hidden_state.float()


class DistillationLoss(nn.Module):
    """Student, averaged student and teacher, as one module from batch to loss, so that DDP and FSDP can wrap it.

    Args:
        unet: the student. Only its trained parameters get gradients.
        teacher: of the student's conditions and noise schedule; frozen.
        empty_text: states of the empty prompt `[1, T, D]`, from which guidance leads away.
        guidance: the teacher's guidance, or its range.
    """

    empty_text: Tensor

    def __init__(
        self,
        unet: LoopUNet,
        teacher: LoopUNet,
        empty_text: Tensor,
        schedule: ScheduleConfig,
        config: DistilConfig,
        guidance: tuple[float, float],
    ) -> None:
        super().__init__()
        self.unet, self.teacher = unet, teacher
        self.target = copy.deepcopy(unet).requires_grad_(False)
        self.register_buffer("empty_text", empty_text, persistent=False)
        self.preconditioning, self.config, self.guidance = (
            Preconditioning(schedule),
            config,
            guidance,
        )

    def follow(self, ema: Ema) -> None:
        """Make the averaged weights of `ema` the target's: the target changes whenever they are updated."""
        own = dict(self.target.named_parameters())
        for name, average in ema.average.items():
            target = own[name.removeprefix("unet.")]
            target.data.copy_(average)
            ema.average[name] = target.data

    def forward(self, batch: Batch) -> Tensor:
        """The mean loss of a batch, a float32 scalar."""
        clips = Clips.of(batch)
        t, z_t = self.noisy_clips(batch)
        s = (t - self.config.skip).clamp(min=CLEAN)
        with torch.no_grad():
            target = self.goal(z_t, t, s, clips, self.drawn_guidance(batch))
        return pseudo_huber(self.clean(self.unet, z_t, t, clips) - target, self.config.huber)

    def goal(self, z_t: Tensor, t: Tensor, s: Tensor, clips: Clips, guidance: Tensor) -> Tensor:
        """What f(z_t, t) should be."""
        if self.config.skip == 0:
            prediction = self.guided(z_t, t, clips, guidance)
            return self.preconditioning.clean_and_noise(prediction, z_t, self.alpha_bar(t))[0]
        z_s = self.teacher_path(z_t, t, s, clips, guidance)
        return self.clean(self.target, z_s, s, clips)

    def noisy_clips(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Timesteps `[N]` and z_t, as sampling sees them.

        The top part of the schedule is one timestep, the last, and there z_t is the noised still
        (`sampling.prepare_noise`): the trace of the clip's own motion that this noise leaves would help in training
        and is not there in sampling.
        """
        last = self.preconditioning.schedule.num_train_timesteps - 1
        starts = batch.timesteps > last - max(self.config.skip // 2, last // 20)
        t = torch.where(starts, last, batch.timesteps)
        z_0 = torch.where(_over_clip(starts), batch.latents[:, :, :1], batch.latents)
        noise = torch.cat([batch.noise[:, :, :-1], batch.noise[:, :, :1]], dim=2)  # tied
        return t, add_noise(z_0, noise, self.alpha_bar(t))

    def drawn_guidance(self, batch: Batch) -> Tensor:
        """A guidance for each clip, `[N, 1, 1, 1, 1]`, drawn with the noise of the closing frame, which is not used."""
        low, high = self.guidance
        uniform = torch.special.ndtr(batch.noise[:, 0, -1, 0, 0])
        return _over_clip(low + (high - low) * uniform)

    def teacher_path(
        self, z_t: Tensor, t: Tensor, s: Tensor, clips: Clips, guidance: Tensor
    ) -> Tensor:
        """z_s from z_t by `distil.teacher_steps` DDIM steps (Song et al. 2021) of the guided teacher."""
        steps = self.config.teacher_steps
        between = [(t + (s - t) * (step / steps)).round().long() for step in range(steps)]
        places = [*(place.clamp(min=0) for place in between), s]
        for now, then in pairwise(places):
            prediction = self.guided(z_t, now, clips, guidance)
            x_0, noise = self.preconditioning.clean_and_noise(prediction, z_t, self.alpha_bar(now))
            z_t = add_noise(x_0, noise, self.alpha_bar(then))
        return z_t

    def guided(self, z_t: Tensor, t: Tensor, clips: Clips, guidance: Tensor) -> Tensor:
        """The teacher's noise or velocity with classifier-free guidance; both branches share the down path."""
        text = torch.cat([self.empty_text.to(clips.text).expand_as(clips.text), clips.text])
        z_c = torch.cat([z_t, clips.concat], dim=1)  # Eq. 11
        base, prompted = self.teacher(z_c, t, clips.image_embeds, text).float().chunk(2)
        return self._prediction(base + guidance * (prompted - base), z_t, t, clips)

    def clean(self, network: LoopUNet, z_t: Tensor, t: Tensor, clips: Clips) -> Tensor:
        """f(z_t, t): the clean clip that a network predicts, without guidance; z_t where there is no noise."""
        clean, t = _over_clip(t == CLEAN), t.clamp(min=0)
        z_c = torch.cat([z_t, clips.concat], dim=1)
        output = network(z_c, t, clips.image_embeds, clips.text).float()
        prediction = self._prediction(output, z_t, t, clips)
        x_0, _ = self.preconditioning.clean_and_noise(prediction, z_t, self.alpha_bar(t))
        return torch.where(clean, z_t, x_0)

    def alpha_bar(self, t: Tensor) -> Tensor:
        """ᾱ_t `[N]`, 1 where there is no noise."""
        return torch.where(t == CLEAN, 1.0, self.preconditioning.alpha_bar(t.clamp(min=0)))

    def _prediction(self, output: Tensor, z_t: Tensor, t: Tensor, clips: Clips) -> Tensor:
        shown = conditions.shown_frames(z_t.shape[2]).to(z_t.device)
        alpha_bar = self.alpha_bar(t)
        return self.preconditioning.prediction(output, z_t, clips.z_still, alpha_bar, shown)


def pseudo_huber(error: Tensor, c: float) -> Tensor:
    """Mean of √(e² + c²) - c (Song & Dhariwal 2023): squared below c, absolute above. 0: the squared error."""
    squared = error.square()
    return ((squared + c * c).sqrt() - c).mean() if c else squared.mean()


def _over_clip(values: Tensor) -> Tensor:
    """`[N]` to a shape that broadcasts over `[N, 4, F, h, w]`."""
    return values.reshape(-1, 1, 1, 1, 1)


def guidance_range(config: DistilConfig, start: Bundle) -> tuple[float, float]:
    """The lowest and highest guidance of the teacher."""
    guidance = start.config.defaults.guidance if config.guidance is None else config.guidance
    return guidance if isinstance(guidance, tuple) else (guidance, guidance)
