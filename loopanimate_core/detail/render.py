"""Drawing the frames: the still's own pixels, moved.

`Rigid` moves the object's layer over the filled background, `Elastic` bends the whole still. Both draw one frame
at a time, so that memory does not grow with the loop. On the CPU OpenCV draws, on other devices
`grid_sample`; they agree within about a grey level.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .canvas import Canvas
from .maps import LATTICE_PX, Falloff, bent_back, largest_displacement, layer_back
from .matte import Layers
from .motion import LayerMotion, Motion
from .pose import matrices

BAND_ROWS = 256  # composed at a time

PointsBack = Callable[[Tensor], Tensor]
Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels."""


class Rigid:
    """The object moved over the background; `transparent` draws the object alone."""

    def __init__(
        self,
        layers: Layers,
        canvas: Canvas,
        motion: Motion,
        *,
        transparent: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        self.canvas, self.motion, self.transparent = canvas, motion, transparent
        self._box = _box_of(layers.cover > 0.0)
        top, left, bottom, right = self._box or (0, 0, 1, 1)
        paint = layers.paint[top:bottom, left:right].copy()  # so that the rest can go
        self._paint = _Plane(paint, canvas, (top, left), device)
        self._background = None
        if not transparent:
            self._background = _Plane(
                layers.background, canvas, (0, 0), device, cv2.BORDER_REFLECT_101
            )

    def draw(self, index: int) -> np.ndarray:
        """Frame `index`, [H, W, 3] in 0..1, or [H, W, 4] with straight alpha when transparent."""
        whole = (0, 0, self.canvas.height_px, self.canvas.width_px)
        if self._background is None:
            frame = np.zeros((*whole[2:], 4), np.float32)
        elif self.motion.background.model == "rest":
            frame = self._background.pixels.copy()
        else:
            frame = self._background.moved(self.motion.background, index, whole)
        target = self._target(index) if self._box else None
        if target is None:
            return frame
        top, left, bottom, right = target
        for row in range(top, bottom, BAND_ROWS):
            band = (row, left, min(row + BAND_ROWS, bottom), right)
            paint = self._paint.moved(self.motion.object, index, band)
            part = frame[band[0] : band[2], left:right]
            if self.transparent:
                cover = np.clip(paint[..., 3:], 0.0, 1.0)
                np.divide(paint[..., :3], np.maximum(cover, 1e-3), out=part[..., :3])
                part[..., 3:] = cover
            else:
                part *= 1.0 - paint[..., 3:]
                part += paint[..., :3]
            np.clip(part, 0.0, 1.0, out=part)
        return frame

    def _target(self, index: int) -> Box | None:
        """The part of the canvas that the object's box is carried to, or None outside."""
        assert self._box is not None
        top, left, bottom, right = self._box
        corners = np.array([[left, top, 1], [right, top, 1], [left, bottom, 1], [right, bottom, 1]])
        moved = corners @ self.canvas.pixel_map(_forward(self.motion.object, index)).T
        bend = self.motion.object.bend
        margin = 3.0
        if bend is not None:
            margin += 1.5 * float(bend[index].abs().max()) * self.canvas.half_width_x
        low, high = np.floor(moved.min(0) - margin), np.ceil(moved.max(0) + margin)
        box = (
            max(0, int(low[1])),
            max(0, int(low[0])),
            min(self.canvas.height_px, int(high[1])),
            min(self.canvas.width_px, int(high[0])),
        )
        return box if box[0] < box[2] and box[1] < box[3] else None


class Elastic:
    """The still bent: the object moves, its surroundings follow less and less over a band."""

    def __init__(
        self,
        still: np.ndarray,
        cover: np.ndarray,
        canvas: Canvas,
        motion: Motion,
        band: float,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        """`band`: width of the band over the canvas' longer side."""
        self.canvas, self.motion = canvas, motion
        self._still = _Plane(still, canvas, (0, 0), device, cv2.BORDER_REFLECT_101)
        box = _box_of(cover > 0.5) or (0, 0, canvas.height_px, canvas.width_px)
        rows, columns = np.linspace(box[0], box[2], 9), np.linspace(box[1], box[3], 9)
        grid = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
        points = torch.from_numpy(
            (grid - [canvas.middle_x, canvas.middle_y]) / [canvas.half_width_x, canvas.half_width_y]
        )
        largest = largest_displacement(motion.object, points)
        width = band * max(canvas.height_px, canvas.width_px) / canvas.half_width_x
        self._falloff = Falloff(cover, canvas, width, largest)

    def draw(self, index: int) -> np.ndarray:
        """Frame `index`, [H, W, 3] in 0..1."""

        def back(points: Tensor) -> Tensor:
            return bent_back(
                self.motion.object, self.motion.background, self._falloff, index, points
            )

        whole = (0, 0, self.canvas.height_px, self.canvas.width_px)
        return np.clip(self._still.bent(back, whole), 0.0, 1.0)


class _Plane:
    """Pixels [h, w, C] whose first one is at `corner` (top, left) of the canvas, ready to be moved."""

    def __init__(
        self,
        pixels: np.ndarray,
        canvas: Canvas,
        corner: tuple[int, int],
        device: str | torch.device,
        border: int = cv2.BORDER_CONSTANT,
    ) -> None:
        self.pixels, self.canvas, self.corner, self.border = pixels, canvas, corner, border
        self._on_device = None
        if not uses_opencv(device):
            self._on_device = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device)

    def moved(self, layer: LayerMotion, index: int, box: Box) -> np.ndarray:
        """The part `box` of the canvas after the layer's motion, [h, w, C]."""
        if layer.bend is not None or self._on_device is not None:
            return self.bent(lambda points: layer_back(layer, index, points), box)
        matrix = self.canvas.pixel_map(_forward(layer, index))
        matrix[:, 2] += matrix[:, :2] @ np.array(self.corner[::-1]) - [box[1], box[0]]
        size = (box[3] - box[1], box[2] - box[0])
        return cv2.warpAffine(
            self.pixels, matrix, size, flags=cv2.INTER_CUBIC, borderMode=self.border
        )

    def bent(self, back: PointsBack, box: Box) -> np.ndarray:
        """The part `box` of the canvas, [h, w, C], each pixel taken from where `back` says."""
        top, left, bottom, right = box
        rows, columns = _nodes(top, bottom), _nodes(left, right)
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).reshape(-1, 2)
        middle = torch.tensor([self.canvas.middle_x - 0.5, self.canvas.middle_y - 0.5]).double()
        half = torch.tensor([self.canvas.half_width_x, self.canvas.half_width_y]).double()
        source = back((grid - middle) / half) * half + middle
        source -= torch.tensor([self.corner[1], self.corner[0]])
        nodes = source.reshape(len(rows), len(columns), 2).permute(2, 0, 1)[None].float()
        size = (bottom - top, right - left)
        if self._on_device is None:
            x, y = F.interpolate(nodes, size, mode="bilinear", align_corners=True)[0].numpy()
            return cv2.remap(self.pixels, x, y, cv2.INTER_CUBIC, borderMode=self.border)
        places = F.interpolate(nodes.to(self._on_device), size, mode="bilinear", align_corners=True)
        return _grid_sampled(self._on_device, places, self.border != cv2.BORDER_CONSTANT)


def uses_opencv(device: str | torch.device) -> bool:
    """Whether frames are drawn by OpenCV there."""
    return torch.device(device).type == "cpu"


def _grid_sampled(pixels: Tensor, places: Tensor, reflect: bool) -> np.ndarray:
    """`pixels` [1, C, h, w] at the indices `places` [1, 2, H, W] → [H, W, C]."""
    height, width = pixels.shape[-2:]
    scale = places.new_tensor([2.0 / max(width - 1, 1), 2.0 / max(height - 1, 1)])
    grid = places.permute(0, 2, 3, 1) * scale - 1.0
    padding = "reflection" if reflect else "zeros"
    drawn = F.grid_sample(pixels, grid, "bicubic", padding, align_corners=True)
    return drawn[0].permute(1, 2, 0).cpu().numpy()


def _nodes(start: int, end: int) -> Tensor:
    """Pixel indices from the first to the last of `start … end - 1`, about `LATTICE_PX` apart."""
    count = max(2, (end - start) // LATTICE_PX + 1)
    return torch.linspace(start, end - 1, count, dtype=torch.float64)


def _forward(layer: LayerMotion, index: int) -> np.ndarray:
    return matrices(layer.poses[index], layer.centre).numpy()


def _box_of(flags: np.ndarray) -> Box | None:
    """The smallest box around the true pixels."""
    rows, columns = np.nonzero(flags.any(1))[0], np.nonzero(flags.any(0))[0]
    if not len(rows):
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
