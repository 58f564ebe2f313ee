"""Where the frames lie on the picture that is drawn.

The model saw an evenly cropped part of the still (`picture.images.fit_picture`), and the result may be
another evenly cropped part of it. Positions are in half-widths of the frames from their middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import LoopAnimateError
from ..picture.images import fit_pixels

ASPECT_TOLERANCE = 0.03


@dataclass(frozen=True)
class Canvas:
    """A picture size, and where the frames' middle and half-width are on it, in pixels."""

    height_px: int
    width_px: int
    middle_x: float
    middle_y: float
    half_width_x: float
    half_width_y: float

    @property
    def matrix(self) -> np.ndarray:
        """[3, 3]: half-widths to pixel indices (the middle of the first pixel is 0)."""
        return np.array(
            [
                [self.half_width_x, 0.0, self.middle_x - 0.5],
                [0.0, self.half_width_y, self.middle_y - 0.5],
                [0.0, 0.0, 1.0],
            ]
        )

    def pixel_map(self, motion: np.ndarray) -> np.ndarray:
        """[2, 3] in half-widths to [2, 3] in pixel indices."""
        full = np.vstack([motion, [0.0, 0.0, 1.0]])
        return (self.matrix @ full @ np.linalg.inv(self.matrix))[:2]


def place(still: tuple[int, int], frames: tuple[int, int], output: tuple[int, int]) -> Canvas:
    """The canvas of `output` size; all sizes are (height, width) in pixels."""
    top, left, height, width = _crop_box(still, output)
    down, right = output[0] / height, output[1] / width
    f_top, f_left, f_height, f_width = _crop_box(still, frames)
    return Canvas(
        output[0],
        output[1],
        (f_left + 0.5 * f_width - left) * right,
        (f_top + 0.5 * f_height - top) * down,
        0.5 * f_width * right,
        0.5 * f_height * down * frames[1] / frames[0],
    )


def fit_still(still: Tensor, canvas: Canvas) -> np.ndarray:
    """[H, W, C] of the canvas from the still [H', W', C]; the same pixels where the size is the same."""
    size = (canvas.height_px, canvas.width_px)
    fitted = still if tuple(still.shape[:2]) == size else fit_pixels(still, *size)
    return np.ascontiguousarray(fitted.numpy(), dtype=np.float32)


def fit_mask(
    mask: Tensor, still: tuple[int, int], frames: tuple[int, int], canvas: Canvas
) -> np.ndarray:
    """[H, W] in 0..1 of the canvas from a mask of the still, of any resolution, or of the frames' size."""
    if mask.ndim != 2 or 0 in mask.shape:
        raise LoopAnimateError(f"a mask must have the shape [H, W], not {list(mask.shape)}")
    mask = mask.detach().float().cpu().nan_to_num(0.0).clamp(0.0, 1.0)
    size = (canvas.height_px, canvas.width_px)
    same_shape = abs(mask.shape[0] / mask.shape[1] * still[1] / still[0] - 1.0) <= ASPECT_TOLERANCE
    if tuple(mask.shape) == frames and not same_shape:
        to_frame = np.diag([2.0 / frames[1], 2.0 / frames[1], 1.0])
        to_frame[:2, 2] = 1.0 / frames[1] - 1.0, (1.0 - frames[0]) / frames[1]
        to_canvas = (canvas.matrix @ to_frame)[:2]
        return np.clip(cv2.warpAffine(mask.numpy(), to_canvas, size[::-1]), 0.0, 1.0)
    if not same_shape:
        raise LoopAnimateError(
            f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels, the still {still[1]} x {still[0]} and"
            f" the frames {frames[1]} x {frames[0]}; it must have the shape of one of them"
        )
    if tuple(mask.shape) == size:
        return mask.numpy()
    return np.ascontiguousarray(fit_pixels(mask[..., None], *size)[..., 0].numpy())


def lattice(height_px: int, width_px: int) -> Tensor:
    """[H, W, 2]: the middles of the frames' pixels, in half-widths."""
    x = (torch.arange(width_px) + 0.5) * (2.0 / width_px) - 1.0
    y = (torch.arange(height_px) + 0.5 - 0.5 * height_px) * (2.0 / width_px)
    return torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1)


def _crop_box(still: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the part of the still that `fit_pixels` brings to the size `wanted`."""
    scale = max(wanted[0] / still[0], wanted[1] / still[1])
    height = min(still[0], max(1, round(wanted[0] / scale)))
    width = min(still[1], max(1, round(wanted[1] / scale)))
    return (still[0] - height) // 2, (still[1] - width) // 2, height, width
