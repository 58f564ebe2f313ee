"""One batch of training clips as tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Everything one training step depends on, random draws included, for N clips.

    Attributes:
        latents, noise: `[N, 4, F, h, w]`.
        masks: `[N, 2, 1, h, w]` in {0, 1}: object in the first and in the turning frame.
        image_embeds: `[N, T_i, D]`, zeros where the image condition was dropped.
        text: hidden states `[N, T_t, D]` of a frozen text encoder, or token ids `[N, T_t]` for one that
            trains; those of the empty prompt where the text was dropped.
        timesteps: `[N]`.
        keep_turn: `[N]` bool, false where the turning frame was dropped from Z_SD and Z_M.
    """

    latents: Tensor
    noise: Tensor
    masks: Tensor
    image_embeds: Tensor
    text: Tensor
    timesteps: Tensor
    keep_turn: Tensor

    def to(self, device: torch.device) -> Batch:
        """A copy on `device`."""
        return Batch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))
