"""A picture with an object, and a loop of it."""

from __future__ import annotations

import torch


def disc(centre: float = 0.5, size_px: int = 64) -> torch.Tensor:
    """A dark disc on a light ground, `[size, size, 3]`; `centre` moves it from left (0) to right (1)."""
    axis = torch.linspace(0, 1, size_px)
    inside = (axis[None] - centre) ** 2 + (axis[:, None] - 0.5) ** 2 < 0.05
    return torch.where(
        inside[..., None], torch.tensor([0.7, 0.1, 0.1]), torch.tensor([0.8, 0.9, 1.0])
    )


def swaying(frames: int = 24, size_px: int = 64) -> torch.Tensor:
    """A loop without a seam."""
    angles = torch.arange(frames) / frames * 2 * torch.pi
    return torch.stack([disc(0.5 + 0.2 * float(angle.sin()), size_px) for angle in angles])
