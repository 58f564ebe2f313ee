"""What the network reads about a loop (Eq. 5-11): pure functions, one per equation.

Shapes: N clips, F = 2f-1 frames, h × w latent pixels. Latents are scaled by the VAE's factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import LoopAnimateError

MIN_FRAMES = 3  # the still at both ends, and one frame between them


def repeat_still(z_first: Tensor, frames: int) -> Tensor:
    """The still at every frame, `[N, 4, h, w] -> [N, 4, F, h, w]`.

    Noised to the first timestep this is where sampling starts: the inverted noise latent code of
    Sec. 3.3.1, made of the only frame that is known at inference.
    """
    return z_first[:, :, None].repeat(1, 1, frames, 1, 1)


def stack_static_dynamic(z_first: Tensor, frames: int, z_turn: Tensor | None = None) -> Tensor:
    """Z_SD of Eq. 8: the still at both ends, the turning frame in the middle, zeros elsewhere.

    Args:
        z_first: ε(F_0), `[N, 4, h, w]`.
        z_turn: 𝔽(F_-1, r), `[N, 4, h, w]`, zeros where it was dropped; None at inference.

    Returns:
        `[N, 4, F, h, w]`.
    """
    return _stack(z_first, frames, z_turn, torch.zeros_like(z_first))


def shown_frames(frames: int) -> Tensor:
    """Bool `[F]`: the frames that Z_SD shows at inference, which are both ends."""
    shown = torch.zeros(frames, dtype=torch.bool)
    shown[[0, -1]] = True
    return shown


def semantic_mask(m_first: Tensor, frames: int, m_turn: Tensor | None = None) -> Tensor:
    """Z_M of Eq. 10, stages 2 and 3: the object's mask at both ends, ones elsewhere.

    Args:
        m_first: M_0, `[N, 1, h, w]` in {0, 1}.
        m_turn: 𝔽(M_-1, r), `[N, 1, h, w]`, ones where it was dropped; None at inference.

    Returns:
        `[N, 1, F, h, w]`. Stage 1 (Z_M all ones) is this function of a mask of ones.
    """
    return _stack(m_first, frames, m_turn, torch.ones_like(m_first))


def drop_turn(z_turn: Tensor, m_turn: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 7 with one joint draw: a dropped latent becomes zeros and its mask ones, as at inference.

    Args:
        z_turn: `[N, 4, h, w]`; m_turn: `[N, 1, h, w]`; keep: `[N]` bool, true with probability 1-r.
    """
    keep = keep[:, None, None, None]
    return torch.where(keep, z_turn, 0.0), torch.where(keep, m_turn, 1.0)


def stack_condition(z_t: Tensor, z_sd: Tensor, z_m: Tensor) -> Tensor:
    """Z_C = [Z_t, Z_SD, Z_M] of Eq. 11, `[N, 9, F, h, w]`."""
    return torch.cat([z_t, z_sd, z_m], dim=1)


def mask_to_latent(mask: Tensor, height: int, width: int) -> Tensor:
    """A pixel mask `[N, H, W]` at latent size: `[N, 1, h, w]` in {0, 1}, 1 where over half is object."""
    area = F.interpolate(mask[:, None].float(), size=(height, width), mode="area")
    return (area > 0.5).to(mask.dtype if mask.is_floating_point() else torch.float32)


def _stack(first: Tensor, frames: int, turn: Tensor | None, filler: Tensor) -> Tensor:
    stack = filler[:, :, None].repeat(1, 1, frames, 1, 1)
    if turn is not None:
        stack[:, :, frames // 2] = turn
    stack[:, :, 0] = first
    stack[:, :, -1] = first
    return stack


def check_frames(frames: int) -> None:
    """Raises LoopAnimateError for a number of frames too small for a loop."""
    if frames < MIN_FRAMES:
        raise LoopAnimateError(f"frames must be at least {MIN_FRAMES}, got {frames}")


@dataclass(frozen=True)
class LoopConditions:
    """Everything one loop needs, from node to core to command line.

    Attributes:
        z_still: latent of the picture, `[1, 4, h, w]`.
        m_still: the object's mask, `[1, 1, h, w]`; ones when there is none.
        image_embeds: `[1, T_i, D]`.
        text_embeds, negative_embeds: `[1, T_t, D]`.
        frames: F, the frames that the loop is closed over; F-1 of them play.
    """

    z_still: Tensor
    m_still: Tensor
    image_embeds: Tensor
    text_embeds: Tensor
    negative_embeds: Tensor
    frames: int

    def __post_init__(self) -> None:
        check_frames(self.frames)

    def concat(self) -> Tensor:
        """[Z_SD, Z_M] at inference, `[1, 5, F, h, w]`."""
        z_sd = stack_static_dynamic(self.z_still, self.frames)
        return torch.cat([z_sd, semantic_mask(self.m_still, self.frames)], dim=1)
