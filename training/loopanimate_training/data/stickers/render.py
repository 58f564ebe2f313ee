"""Drawing stickers on backgrounds, moved as a prompt says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .motion import Motion, Pose, pose_at

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.15, 0.18),
    "orange": (0.96, 0.55, 0.12),
    "yellow": (0.97, 0.84, 0.18),
    "green": (0.20, 0.66, 0.28),
    "teal": (0.10, 0.60, 0.60),
    "blue": (0.15, 0.38, 0.85),
    "purple": (0.52, 0.25, 0.75),
    "pink": (0.95, 0.45, 0.68),
    "brown": (0.50, 0.32, 0.20),
    "grey": (0.50, 0.50, 0.50),
    "white": (0.96, 0.96, 0.96),
    "black": (0.08, 0.08, 0.08),
}
BACKGROUND_KINDS = ("pastel", "saturated", "gradient", "noise")


@dataclass(frozen=True)
class Placement:
    """Place of the sprite at rest: its centre in half-widths from the middle, and its side as a share of the
    picture's side."""

    x: float = 0.0
    y: float = 0.0
    scale: float = 0.6


def premultiplied(sprites: np.ndarray, size_px: int) -> Tensor:
    """[n, S, S, 4] uint8 with straight alpha → [n, 4, size_px, size_px] float, colours multiplied by alpha."""
    planes = torch.from_numpy(np.array(sprites)).permute(0, 3, 1, 2).float().div_(255.0)
    planes[:, :3] *= planes[:, 3:]
    if size_px == planes.shape[-1]:
        return planes
    return F.interpolate(
        planes, size=(size_px, size_px), mode="bilinear", antialias=True, align_corners=False
    )


def render_clip(
    sprite: np.ndarray,
    motion: Motion,
    times_s: Tensor,
    background: Tensor,
    placement: Placement,
    size_px: int,
) -> tuple[Tensor, Tensor]:
    """Move one sprite [S, S, 4] over `background` [H, W, 3].

    Returns frames [n, H, W, 3] in 0..1 and masks [n, H, W] bool (alpha above one half), one per entry of `times_s`.
    """
    planes = premultiplied(sprite[None], max(8, round(placement.scale * size_px)))
    return compose(planes, pose_at(motion, times_s), background, placement, size_px)


def compose(
    planes: Tensor, pose: Pose, background: Tensor, placement: Placement, size_px: int
) -> tuple[Tensor, Tensor]:
    """Warp premultiplied `planes` [1 or n, 4, p, p] by `pose` [n] and lay them over `background`."""
    grid = _sampling_grid(pose, placement, size_px)
    frames = grid.shape[0]
    if (
        planes.shape[0] == 1
    ):  # one still: sample all frames as one tall picture, without copies of it
        warped = F.grid_sample(
            planes, grid.reshape(1, frames * size_px, size_px, 2), align_corners=False
        )
        warped = warped.reshape(4, frames, size_px, size_px).permute(1, 2, 3, 0)
    else:
        warped = F.grid_sample(planes, grid, align_corners=False).permute(0, 2, 3, 1)
    alpha = warped[..., 3:]
    return warped[..., :3] + (1.0 - alpha) * background, alpha[..., 0] > 0.5


def _sampling_grid(pose: Pose, placement: Placement, size_px: int) -> Tensor:
    """[n, H, W, 2]: for each point of the picture, the point of the sprite (-1..1) that the pose moves there."""
    axis = (torch.arange(size_px, dtype=torch.float32) + 0.5) * (2.0 / size_px) - 1.0
    shrink = torch.exp(-pose.log_scale) / placement.scale
    cosine, sine = (
        (pose.angle_rad.cos() * shrink)[:, None],
        (pose.angle_rad.sin() * shrink)[:, None],
    )
    x = axis - (placement.x + pose.x)[:, None]
    y = axis - (placement.y + pose.y)[:, None]
    grid = torch.empty(x.shape[0], size_px, size_px, 2)
    # The inverse of a clockwise turn.
    torch.add((cosine * x)[:, None, :], (sine * y)[:, :, None], out=grid[..., 0])
    torch.add((-sine * x)[:, None, :], (cosine * y)[:, :, None], out=grid[..., 1])
    return grid


def draw_background(rng: np.random.Generator, kind: str, size_px: int) -> tuple[Tensor, str]:
    """A background [H, W, 3] in 0..1 of one of `BACKGROUND_KINDS`, and the name of its colour ("" if it has
    several)."""
    names = list(COLOURS)
    first, second = (names[i] for i in rng.choice(len(names), 2, replace=False))
    if kind in ("pastel", "saturated"):
        colour = _shade(rng, first, pastel=kind == "pastel")
        return colour.expand(size_px, size_px, 3), first
    if kind == "gradient":
        angle = rng.uniform(0.0, 2.0 * np.pi)
        axis = torch.linspace(-0.5, 0.5, size_px)
        ramp = 0.5 + (
            float(np.cos(angle)) * axis[None, :] + float(np.sin(angle)) * axis[:, None]
        ) / np.sqrt(2.0)
        ends = (
            _shade(rng, first, pastel=bool(rng.integers(2))),
            _shade(rng, second, pastel=bool(rng.integers(2))),
        )
        return torch.lerp(ends[0], ends[1], ramp[..., None].float()), ""
    coarse = torch.from_numpy(rng.uniform(0.15, 0.95, (1, 3, 3, 3))).float()
    smooth = F.interpolate(coarse, size=(size_px, size_px), mode="bicubic", align_corners=True)
    return smooth[0].permute(1, 2, 0).clamp(0.0, 1.0), ""


def _shade(rng: np.random.Generator, name: str, *, pastel: bool) -> Tensor:
    colour = np.asarray(COLOURS[name]) + rng.normal(0.0, 0.04, 3)
    if pastel:
        colour = 0.35 * colour + 0.65
    return torch.from_numpy(colour.clip(0.0, 1.0)).float()
