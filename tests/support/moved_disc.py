"""A small loop with a known motion: a textured disc over a smooth background."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from loopanimate_core.picture.images import fit_pixels

FRAMES = 10


@dataclass(frozen=True)
class Truth:
    """A still [H, W, 3], its mask [H, W], the true frames [P, H, W, 3] and masks, and what a model would show."""

    still: Tensor
    mask: Tensor
    frames: Tensor
    small: Tensor
    masks: Tensor


def draw_loop(
    height: int = 96,
    width: int = 96,
    *,
    shift: float = 0.15,
    turn: float = 0.0,
    frames: int = FRAMES,
    model_px: int = 48,
) -> Truth:
    """A disc swings by `shift` half-widths to the right and `turn` radians, drawn exactly at every pixel."""
    x = ((torch.arange(width) + 0.5) * 2 / width - 1)[None, :]
    y = ((torch.arange(height) + 0.5 - height / 2) * 2 / width)[:, None]
    background = torch.stack(torch.broadcast_tensors(0.5 + 0.2 * x, 0.6 + 0.1 * y, 0.7 + 0 * x), -1)
    pictures, covers = [], []
    for frame in range(frames):
        wave = math.sin(2 * math.pi * frame / frames)
        cosine, sine = math.cos(turn * wave), math.sin(turn * wave)
        u, v = x - shift * wave, y + 0 * x
        u, v = cosine * u + sine * v, cosine * v - sine * u
        cover = ((0.45 - (u.square() + v.square()).sqrt()) * width / 2 + 0.5).clamp(0, 1)
        paint = torch.stack(
            [
                0.5 + 0.4 * torch.sin(9 * u),
                0.4 + 0.3 * torch.cos(11 * v),
                0.3 + 0.2 * torch.sin(8 * (u + v)),
            ],
            -1,
        )
        pictures.append(torch.lerp(background, paint, cover[..., None]))
        covers.append(cover)
    true = torch.stack(pictures)
    small_height = round(model_px * height / width)
    small = torch.stack([fit_pixels(picture, small_height, model_px) for picture in true])
    masks = (torch.stack(covers) > 0.5).float()
    return Truth(true[0], masks[0], true, small, masks)


def psnr(frames: Tensor, truth: Tensor) -> float:
    return -10.0 * math.log10(float((frames - truth).square().mean()) + 1e-12)
