"""DPM-Solver++ (2M), the default sampler, without diffusers: importing that takes longer than a few steps.

The same numbers as diffusers' `DPMSolverMultistepScheduler`, and the same methods; a test compares the two.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

KARRAS_RHO = 7.0


class DpmSolver2M:
    """Lu et al. 2022, Algorithm 2, on noise levels spaced evenly in log-SNR (`lu`) or as Karras et al. do.

    Attributes:
        timesteps: `[steps]` int64.
        sigmas: `[steps + 1]` float32, σ/α at each step, 0 at the end.
    """

    def __init__(self, alphas_cumprod: Tensor, prediction_type: str, spacing: str) -> None:
        self.prediction_type = prediction_type
        self.spacing = spacing
        alpha_bar = alphas_cumprod.numpy()
        self._log_sigmas = np.log(((1 - alpha_bar) / alpha_bar) ** 0.5)
        self.timesteps = torch.empty(0, dtype=torch.int64)
        self.sigmas = torch.zeros(1)
        self._index = 0
        self._before: Tensor | None = None  # the clean clip that the step before predicted

    def set_timesteps(self, num_inference_steps: int, *, device: Any = None) -> None:
        log_sigmas, steps = self._log_sigmas, num_inference_steps
        ramp = np.linspace(0, 1, steps)
        if self.spacing == "lu":
            chosen = log_sigmas[-1] + ramp * (log_sigmas[0] - log_sigmas[-1])
        else:
            low, high = (math.exp(log_sigmas[i]) ** (1 / KARRAS_RHO) for i in (0, -1))
            chosen = KARRAS_RHO * np.log(high + ramp * (low - high))
        times = np.interp(chosen, log_sigmas, np.arange(len(log_sigmas)))
        self.timesteps = torch.from_numpy(times.round()).to(device=device, dtype=torch.int64)
        self.sigmas = torch.from_numpy(np.append(np.exp(chosen), 0).astype(np.float32))
        self.set_begin_index(0)

    def set_begin_index(self, begin_index: int = 0) -> None:
        self._index, self._before = begin_index, None

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        alpha, sigma = self._alpha_sigma(self._index)
        return alpha * original_samples + sigma * noise

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, **options: Any
    ) -> tuple[Tensor]:
        """The clip at the next noise level, in a tuple, as diffusers returns it."""
        alpha, sigma = self._alpha_sigma(self._index)
        next_alpha, next_sigma = self._alpha_sigma(self._index + 1)
        if self.prediction_type == "epsilon":
            clean = (sample - sigma * model_output) / alpha
        else:
            clean = alpha * sample - sigma * model_output
        lean, before = clean, self._before
        last = self._index == len(self.timesteps) - 1
        if before is not None and not last:
            here, back = self._log_snr(self._index), self._log_snr(self._index - 1)
            ratio = (here - back) / (self._log_snr(self._index + 1) - here)
            lean = clean + (clean - before) / (2 * ratio)
        # α·(e^-h - 1) with e^-h = (σ'/α')/(σ/α)
        shrink = float(self.sigmas[self._index + 1] / self.sigmas[self._index])
        moved = (next_sigma / sigma) * sample.float() - next_alpha * (shrink - 1) * lean
        self._before = clean
        self._index += 1
        return (moved.to(model_output.dtype),)

    def _alpha_sigma(self, index: int) -> tuple[float, float]:
        level = float(self.sigmas[index])
        alpha = 1 / math.sqrt(level**2 + 1)
        return alpha, level * alpha

    def _log_snr(self, index: int) -> float:
        return -math.log(float(self.sigmas[index]))
