"""The training objective (Eq. 2 and 6-11) of one batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from loopanimate_core import conditions
from loopanimate_core.models import LoopUNet
from loopanimate_core.preconditioning import Preconditioning, add_noise
from loopanimate_core.schedule import ScheduleConfig

from ..config import LossConfig
from ..data.batch import Batch


def network_input(batch: Batch, alpha_bar: Tensor) -> Tensor:
    """Z_C `[N, 9, F, h, w]` for ᾱ_t `[N]`."""
    z_0, frames = batch.latents, batch.latents.shape[2]
    z_turn, m_turn = conditions.drop_turn(
        z_0[:, :, frames // 2], batch.masks[:, 1], batch.keep_turn
    )
    return conditions.stack_condition(
        add_noise(z_0, batch.noise, alpha_bar),
        conditions.stack_static_dynamic(z_0[:, :, 0], frames, z_turn),
        conditions.semantic_mask(batch.masks[:, 0], frames, m_turn),
    )


def min_snr_weight(alpha_bar: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Weights `[N]` of the loss with which the error in x_0 counts min(SNR, gamma) times (Hang et al. 2023)."""
    snr = alpha_bar / (1 - alpha_bar)
    return snr.clamp(max=gamma) / (snr + 1 if prediction_type == "v_prediction" else snr)


def motion_weights(z_0: Tensor, weight: float) -> Tensor:
    """1 where a clip equals its still, up to 1 + `weight` where it differs: `[N, 1, F, h, w]`."""
    change = (z_0 - z_0[:, :, :1]).abs().mean(1, keepdim=True)
    return 1.0 + weight * change.clamp(max=1.0)


class DiffusionLoss(nn.Module):
    """The networks that train, as one module from batch to loss, so that DDP and FSDP can wrap it.

    Args:
        text_encoder: only if it trains.
    """

    def __init__(
        self,
        unet: LoopUNet,
        text_encoder: nn.Module | None,
        schedule: ScheduleConfig,
        config: LossConfig,
    ) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        self.preconditioning, self.config = Preconditioning(schedule), config

    def forward(self, batch: Batch) -> Tensor:
        """The mean loss of a batch, a float32 scalar."""
        alpha_bar = self.preconditioning.alpha_bar(batch.timesteps)
        text_states = batch.text
        if self.text_encoder is not None:
            encoded: Any = self.text_encoder(batch.text)
            text_states = encoded.last_hidden_state
        prediction = self.unet(
            network_input(batch, alpha_bar),
            batch.timesteps,
            batch.image_embeds,
            text_states,
        )
        target = self.preconditioning.target(
            batch.latents, batch.noise, batch.latents[:, :, 0], alpha_bar
        )
        error = (prediction.float() - target).square()
        if self.config.motion_weight:
            error = error * motion_weights(batch.latents, self.config.motion_weight)
        per_clip = error.flatten(1).mean(1)
        if self.config.min_snr is not None:
            prediction_type = self.preconditioning.schedule.prediction_type
            weight = min_snr_weight(alpha_bar, self.config.min_snr, prediction_type)
            per_clip = per_clip * weight
        return per_clip.mean()
