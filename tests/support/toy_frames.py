"""A small, smooth, perfect loop, and files to write it to."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from loopanimate_core.video.formats import FORMATS

HEIGHT, WIDTH, FRAMES = 72, 96, 12
# Mean absolute error of the loop at the default quality, in 1/255.
TOLERANCE = {"mp4": 1.5, "webm": 1.5, "webm-av1": 1.5, "prores": 0.6, "ffv1": 0.01}
TOLERANCE |= {"webp": 2.0, "avif": 1.5, "apng": 0.5, "png": 0.5, "gif": 10.0}
ALL_FORMATS = sorted(FORMATS)


def make_frames(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """A smooth perfect loop [P, H, W, 3] in 0.1..0.9: a soft ball on a circle over a ramp."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    pictures = []
    for index in range(frames):
        angle = 2 * math.pi * index / frames
        ball = torch.exp(
            -40 * ((x - 0.5 - 0.2 * math.cos(angle)) ** 2 + (y - 0.5 - 0.2 * math.sin(angle)) ** 2)
        )
        pictures.append(torch.stack([0.2 + 0.6 * ball, 0.2 + 0.5 * y, 0.7 - 0.5 * x], -1))
    return torch.stack(pictures)


def place(folder: Path, name: str) -> Path:
    """A path in `folder` with the suffix of the format `name`."""
    return folder / f"loop{FORMATS[name].suffixes[0]}"


def error_of(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The mean absolute error in 1/255."""
    return 255 * float((found - wanted).abs().mean())
