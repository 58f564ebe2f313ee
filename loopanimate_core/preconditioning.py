"""What the network's output means: its target in training, and the prediction it stands for in sampling.

Shapes: N clips, F frames, h × w latent pixels. Latents are scaled by the VAE's factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .schedule import ScheduleConfig, alphas_cumprod


@dataclass(frozen=True)
class Preconditioning:
    """What a network that was trained with `schedule` predicts.

    With `schedule.still_prior` = 0 it predicts the noise or the velocity itself. With a still prior it
    predicts how far the velocity is from the prior's mean, in units of the prior's standard deviation
    (`still_prior`). `target` and `prediction` are inverses of each other.
    """

    schedule: ScheduleConfig

    @cached_property
    def _alphas_cumprod(self) -> Tensor:
        return alphas_cumprod(self.schedule)

    def alpha_bar(self, timestep: Tensor) -> Tensor:
        """ᾱ_t at timesteps of any shape. Fractions are rounded: some frameworks pass timesteps as floats."""
        return self._alphas_cumprod.to(timestep.device)[timestep.round().long()]

    def target(self, z_0: Tensor, noise: Tensor, z_still: Tensor, alpha_bar: Tensor) -> Tensor:
        """What the network should output for a clip noised by Eq. 6.

        Args:
            z_0, noise: `[N, 4, F, h, w]`.
            z_still: `[N, 4, h, w]`.
            alpha_bar: `[N]`.
        """
        if self.schedule.prediction_type == "epsilon":
            return noise
        v = velocity(z_0, noise, alpha_bar)
        if not self.schedule.still_prior:
            return v
        z_t = add_noise(z_0, noise, alpha_bar)
        mean, deviation = still_prior(z_t, z_still, alpha_bar, self.schedule.still_prior)
        return (v - mean) / deviation

    def prediction(
        self,
        output: Tensor,
        z_t: Tensor,
        z_still: Tensor,
        alpha_bar: Tensor,
        shown: Tensor | None = None,
    ) -> Tensor:
        """The noise or velocity that the network's output stands for.

        Args:
            output, z_t: `[N, 4, F, h, w]`; z_t may have one row for all of `output`.
            z_still: `[N or 1, 4, h, w]`.
            alpha_bar: `[N or 1]`, or a scalar.
            shown: bool `[F]`, the frames that are known to be the still because Z_SD shows it there. Their
                prior has no spread, so they come out as the still exactly. None as in training: no frame.
        """
        std = self.schedule.still_prior
        if not std:
            return output
        spread = std if shown is None else torch.where(shown, 0.0, std)[:, None, None]
        mean, deviation = still_prior(z_t.float(), z_still.float(), alpha_bar, spread)
        return mean + deviation * output.float()

    def clean_and_noise(
        self, prediction: Tensor, z_t: Tensor, alpha_bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """z_0 and ε of Eq. 6 as a noise or velocity prediction says, like `z_t [N, 4, F, h, w]`.

        Args:
            prediction: as `prediction` returns it.
            alpha_bar: `[N or 1]`, or a scalar.
        """
        alpha_bar = _over_clip(alpha_bar)
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.schedule.prediction_type == "epsilon":
            return (z_t - sigma * prediction) / alpha, prediction
        return alpha * z_t - sigma * prediction, sigma * z_t + alpha * prediction


def add_noise(z_0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Z_t = √ᾱ·Z_0 + √(1-ᾱ)·ε of Eq. 6 for `z_0 [N, 4, F, h, w]` and ᾱ_t `[N]`."""
    alpha_bar = _over_clip(alpha_bar)
    return alpha_bar.sqrt() * z_0 + (1 - alpha_bar).sqrt() * noise


def velocity(z_0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """v = √ᾱ·ε - √(1-ᾱ)·Z_0 (Salimans & Ho 2022), the target of v-prediction."""
    alpha_bar = _over_clip(alpha_bar)
    return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * z_0


def still_prior(
    z_t: Tensor, z_still: Tensor, alpha_bar: Tensor, std: Tensor | float
) -> tuple[Tensor, Tensor]:
    """The velocity's mean and standard deviation given Z_t, when only the still of a clip is known.

    If a clip is its still plus independent changes N(0, s²), then with α = √ᾱ, σ = √(1-ᾱ), d² = α²s² + σ²

        v | Z_t  ~  N( ασ(1-s²)/d² · (Z_t - α·Z_still) - σ·Z_still,  (s/d)² ).

    A network of unit output around this (the preconditioning of Karras et al. 2022, about the still instead
    of about zero) keeps colours and background without having learned to.

    Args:
        z_t: `[N, 4, F, h, w]`.
        z_still: `[N or 1, 4, h, w]`.
        alpha_bar: `[N or 1]`, or a scalar.
        std: s, one number, or one per frame as `[F, 1, 1]`; 0 for a frame that is the still.

    Returns:
        The mean, like `z_t`, and the standard deviation, which broadcasts to it.
    """
    alpha_bar = _over_clip(alpha_bar)
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    variance = alpha_bar * std**2 + 1 - alpha_bar
    still = z_still[:, :, None]
    mean = alpha * sigma * (1 - std**2) / variance * (z_t - alpha * still) - sigma * still
    return mean, std / variance.sqrt()


def _over_clip(alpha_bar: Tensor) -> Tensor:
    """`[N]` or a scalar to a shape that broadcasts over `[N, 4, F, h, w]`."""
    return alpha_bar.reshape(-1, 1, 1, 1, 1)
