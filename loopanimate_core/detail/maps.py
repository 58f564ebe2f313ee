"""Which point of frame 0 a pixel of a later frame shows, for one layer's motion; all in half-widths."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .canvas import Canvas, lattice
from .motion import LayerMotion, cubic_basis
from .pose import inverse, matrices

LATTICE_PX = 8  # bent maps are computed this far apart and interpolated
FALLOFF_PX = 256  # the fading of a bent zone is computed at this size
BEND_ROOM = (
    2.0  # a bent zone is so many times as wide as the largest displacement: it must not fold
)
BEND_ROUNDS = 5  # to find the way back through a bend
_ROUNDS = 12


def bend_basis(points: Tensor, knots: int, box: Tensor) -> Tensor:
    """[N, knots²]: the weight of every knot of a cubic B-spline on `box` at the points [N, 2]."""
    place = (points - box[:2]) / (box[2:] - box[:2]) * (knots - 1)
    along = cubic_basis(place[..., None] - torch.arange(knots, dtype=points.dtype))  # [N, 2, knots]
    return (along[:, 1, :, None] * along[:, 0, None, :]).flatten(1)


def bend_at(points: Tensor, bend: Tensor, box: Tensor) -> Tensor:
    """[..., N, 2]: the shift at points [..., N, 2] of a B-spline on `box` with the knots [..., knots, knots, 2].

    As `bend_basis(points) @ knots`, summed along y before x.
    """
    knots = bend.shape[-2]
    place = (points - box[:2]) / (box[2:] - box[:2]) * (knots - 1)
    along = cubic_basis(place[..., None] - torch.arange(knots, dtype=points.dtype))
    columns = (along[..., 1, :] @ bend.flatten(-2)).unflatten(-1, (knots, 2))
    return (columns * along[..., 0, :, None]).sum(-2)


def displacement(layer: LayerMotion, index: int, points: Tensor) -> Tensor:
    """How far the points [N, 2] of frame 0 have gone in frame `index`: [N, 2]."""
    bent = points + _bend(layer, index, points)
    forward = matrices(layer.poses[index], layer.centre).to(points.dtype)
    return bent @ forward[:, :2].T + forward[:, 2] - points


def layer_back(layer: LayerMotion, index: int, points: Tensor) -> Tensor:
    """The points [N, 2] of frame 0 that the layer carries to `points` [N, 2] of frame `index`."""
    back = inverse(matrices(layer.poses[index], layer.centre)).to(points.dtype)
    unposed = points @ back[:, :2].T + back[:, 2]
    source = unposed
    if layer.bend is not None:
        for _ in range(BEND_ROUNDS):
            source = unposed - _bend(layer, index, source)
    return source


def layer_points(layer: LayerMotion, frames: Tensor) -> Tensor:
    """[P, h, w, 2]: the point of frame 0 that the layer shows at every pixel of `frames` [P, …, h, w]."""
    points = lattice(*frames.shape[-2:])
    return torch.stack(
        [
            layer_back(layer, index, points.reshape(-1, 2)).reshape(points.shape)
            for index in range(len(layer.poses))
        ]
    )


def posed_back(layer: LayerMotion, frames: Tensor) -> Tensor:
    """As `layer_points`, but before the layer's bend."""
    return layer_points(replace(layer, bend=None), frames)


class Falloff:
    """1 on the object in frame 0, fading to 0 over a band around it and towards the picture's border."""

    def __init__(self, cover: np.ndarray, canvas: Canvas, band: float, largest: float) -> None:
        """`band` and `largest`, the largest displacement of the loop, in half-widths."""
        height, width = cover.shape
        scale = min(1.0, FALLOFF_PX / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        inside = cv2.resize(cover, size, interpolation=cv2.INTER_AREA) > 0.02
        unit = width / size[0] / canvas.half_width_x  # half-widths a pixel
        if inside.any():
            away = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5) * unit
        else:
            away = np.zeros(inside.shape, np.float32)  # no object: everything moves
        rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in inside.shape)
        to_border = unit * np.minimum(rows[:, None], columns[None])
        room = np.clip(away + to_border, 0.75 * BEND_ROOM * largest, max(band, BEND_ROOM * largest))
        near = np.clip(1.0 - away / np.maximum(room, 1e-6), 0.0, 1.0)
        fading = near * near * (3.0 - 2.0 * near)
        self._plane = torch.from_numpy(fading.astype(np.float32))[None, None]
        self._middle = torch.tensor([canvas.middle_x, canvas.middle_y])
        self._half = torch.tensor([canvas.half_width_x, canvas.half_width_y])
        self._size = torch.tensor([canvas.width_px, canvas.height_px])

    def at(self, points: Tensor) -> Tensor:
        """[N, 1] at the points [N, 2] of frame 0."""
        grid = (points * self._half + self._middle) * (2.0 / self._size) - 1.0
        drawn = F.grid_sample(
            self._plane, grid[None, None].float(), padding_mode="border", align_corners=False
        )
        return drawn[0, 0, 0][:, None].to(points.dtype)


def bent_back(
    moved: LayerMotion, held: LayerMotion, falloff: Falloff, index: int, points: Tensor
) -> Tensor:
    """As `layer_back` for a picture bent so that the object moves like `moved`, its surroundings like `held`."""
    source = points
    for _ in range(_ROUNDS):
        share = falloff.at(source)
        way = share * displacement(moved, index, source)
        if held.model != "rest":
            way = way + (1.0 - share) * displacement(held, index, source)
        source = points - way
    return source


def largest_displacement(layer: LayerMotion, points: Tensor) -> float:
    """Of the points [N, 2] over the whole loop, in half-widths."""
    ways = [displacement(layer, index, points) for index in range(len(layer.poses))]
    return max(float(way.square().sum(-1).max().sqrt()) for way in ways)


def _bend(layer: LayerMotion, index: int, points: Tensor) -> Tensor:
    if layer.bend is None or layer.box is None:
        return torch.zeros_like(points)
    return bend_at(points, layer.bend[index].to(points.dtype), layer.box.to(points.dtype))
