"""What the frames show and motion cannot explain: a blink, a flame, light and shadow.

It is the model's frames less the model's own frame 0 moved by the estimate. Differences that a slightly wrong
motion would make (beside strong edges) and those the size of an autoencoder's grain are left out.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .canvas import Canvas
from .fit import Scene, blur, compose, gradients
from .maps import layer_points
from .motion import Motion, resample_ring

BANDS_PX = (4.0, 1.5, 0.0)  # of the frames: low frequencies are let through first
MISPLACED_PX = 0.75  # edges that far off are no residual
GRAIN = 0.02  # of a colour, 0..1
_EDGE_SHARE = 0.04  # of the frames' width: the residual fades towards their border


def residual_frames(scene: Scene, motion: Motion, strength: float, count: int) -> Tensor:
    """[count, 3, h, w]: what is added to the moved still, at the frames' size; zero in frame 0.

    Args:
        strength: 0 … 1: the coarsest band comes in first, then the finer ones.
    """
    drawn = compose(scene, layer_points(motion.object, scene.frames))
    error = scene.frames - drawn
    unit = 2.0 / scene.frames.shape[-1]
    slope_x, slope_y = gradients(drawn.flatten(0, 1))
    edge = MISPLACED_PX * unit * (slope_x.square() + slope_y.square()).sqrt().unflatten(0, (-1, 3))
    size = error.square().mean(1, keepdim=True).sqrt()
    allowed = edge.square().mean(1, keepdim=True).sqrt() + GRAIN
    error = error * (1.0 - allowed / size.clamp(min=1e-6)).clamp(min=0.0)
    through = torch.zeros_like(error)
    finer = error
    for number, sigma in enumerate(BANDS_PX):
        coarse = blur(finer, sigma)
        share = min(1.0, max(0.0, strength * len(BANDS_PX) - number))
        through = through + share * coarse
        finer = finer - coarse
    through = through * _border_fade(*through.shape[-2:])
    through[0] = 0.0
    return resample_ring(through, count).float()


def add_residual(frame: np.ndarray, residual: Tensor, canvas: Canvas) -> np.ndarray:
    """`frame` [H, W, C] plus the residual [3, h, w] enlarged to where the frames lie on the canvas."""
    import cv2

    height, width = residual.shape[-2:]
    to_frame = np.diag([2.0 / width, 2.0 / width, 1.0])
    to_frame[:2, 2] = 1.0 / width - 1.0, (1.0 - height) / width
    matrix = (canvas.matrix @ to_frame)[:2]
    plane = np.ascontiguousarray(residual.permute(1, 2, 0).numpy())
    size = (canvas.width_px, canvas.height_px)
    enlarged = cv2.warpAffine(plane, matrix, size, flags=cv2.INTER_CUBIC)
    frame[..., :3] += enlarged
    return np.clip(frame, 0.0, 1.0, out=frame)


def _border_fade(height: int, width: int) -> Tensor:
    """[h, w]: 0 at the border, 1 inside: the frames may be a part of the picture."""
    rows = torch.minimum(torch.arange(height), torch.arange(height).flip(0)).float()
    columns = torch.minimum(torch.arange(width), torch.arange(width).flip(0)).float()
    return (torch.minimum(rows[:, None], columns[None]) / (_EDGE_SHARE * width)).clamp(max=1.0)
