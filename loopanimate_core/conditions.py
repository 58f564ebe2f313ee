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

CONDITIONINGS = ("loop", "pia")
"""What a network was trained to read beside the noisy clip: Eq. 11 of LoopAnimate, or PIA's Eq. 2."""

MOTIONS: dict[str, tuple[float, ...]] = {
    "small": (1, 0.9, 0.85, 0.85, 0.85, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.85, 0.85, 0.9, 1),
    "medium": (1, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75, 0.75, 0.75, 0.75, 0.75, 0.78, 0.79, 0.8, 0.8, 1),
    "large": (1, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.8, 1),
}
"""PIA's own tables for loops of 16 frames: each frame's affinity to the still (its `--loop`)."""

DEFAULT_MOTION = "medium"


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


def affinity(frames: int, motion: str = DEFAULT_MOTION) -> Tensor:
    """PIA's affinity of each frame to the still, `[F]` in 0..1: a closed curve, 1 at both ends.

    PIA's table for 16 frames, read at the same phases of the loop. Longer clips keep the curve, where PIA
    itself would repeat the table's last value and so hold the rest of the clip still.

    Raises:
        LoopAnimateError: a name that is not in `MOTIONS`.
    """
    check_motion(motion)
    table = torch.tensor(MOTIONS[motion])[None, None]
    return F.interpolate(table, size=frames, mode="linear", align_corners=True)[0, 0]


def pia_condition(z_still: Tensor, frames: int, motion: str = DEFAULT_MOTION) -> Tensor:
    """What PIA reads beside Z_t: the still at every frame, and the affinity as a constant map.

    Args:
        z_still: `[N, 4, h, w]`.

    Returns:
        `[N, 5, F, h, w]` in our order of channels: the still, then the affinity.
    """
    still = repeat_still(z_still, frames)
    level = affinity(frames, motion).to(z_still)[:, None, None]
    return torch.cat([still, level.expand_as(still[:, :1])], dim=1)


def static_condition(
    conditioning: str, z_still: Tensor, m_still: Tensor, frames: int, motion: str
) -> Tensor:
    """The five channels beside Z_t at inference, for a network of that `conditioning`.

    Args:
        z_still: `[N, 4, h, w]`; m_still: `[N, 1, h, w]`, which PIA does not read.
        motion: which PIA alone reads.

    Returns:
        `[N, 5, F, h, w]`.
    """
    if conditioning == "pia":
        return pia_condition(z_still, frames, motion)
    z_sd = stack_static_dynamic(z_still, frames)
    return torch.cat([z_sd, semantic_mask(m_still, frames)], dim=1)


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


def check_motion(motion: str) -> None:
    """Raises LoopAnimateError for a name that is not in `MOTIONS`."""
    if motion not in MOTIONS:
        raise LoopAnimateError(f"motion must be one of {', '.join(MOTIONS)}, got {motion!r}")


@dataclass(frozen=True)
class LoopConditions:
    """Everything one loop needs, from node to core to command line.

    Attributes:
        z_still: latent of the picture, `[1, 4, h, w]`.
        m_still: the object's mask, `[1, 1, h, w]`; ones when there is none.
        image_embeds: `[1, T_i, D]`.
        text_embeds, negative_embeds: `[1, T_t, D]`, or `[1, P, T_t, D]` with the text of each frame that plays.
        frames: F, the frames that the loop is closed over; F-1 of them play.
        conditioning: one of `CONDITIONINGS`.
        motion: one of `MOTIONS`, for PIA.
    """

    z_still: Tensor
    m_still: Tensor
    image_embeds: Tensor
    text_embeds: Tensor
    negative_embeds: Tensor
    frames: int
    conditioning: str = "loop"
    motion: str = DEFAULT_MOTION

    def __post_init__(self) -> None:
        check_frames(self.frames)

    def concat(self) -> Tensor:
        """[Z_SD, Z_M] at inference, or PIA's condition, `[1, 5, F, h, w]`."""
        return static_condition(
            self.conditioning, self.z_still, self.m_still, self.frames, self.motion
        )
