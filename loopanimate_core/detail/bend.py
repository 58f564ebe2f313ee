"""What an affine map cannot follow: a smooth displacement on top of it, at the knots of a cubic B-spline.

Gauss-Newton as in `fit.py`, frame by frame; a stiffness along the grid and round the ring keeps the displacement
small and smooth, and each frame is pulled towards the middle of its neighbours as they were
one iteration before.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .canvas import lattice
from .fit import (
    Scene,
    compose,
    error_spread,
    frame_costs,
    gradients,
    points_back,
    sample,
)
from .maps import bend_basis
from .motion import LayerMotion

KNOTS = 6
LARGEST, UNEVEN, JOLT = 0.1, 0.04, 0.04  # half-widths: usual size, and second differences
_LEVELS = ((1 / 24, 48, 0.25), (1 / 48, 96, 0.5), (1 / 96, 96, 1.0))
"""Blur over the width, the fit's size in pixels, and the share of the gain that must be reached by then."""
_ITERATIONS = 4  # each
_MARGIN = 0.15  # of the box around the object


def fit_bend(scene: Scene, layer: LayerMotion, gain: float) -> LayerMotion:
    """The layer with a bend [P, KNOTS, KNOTS, 2], none in frame 0; or as it is, if bending explains too little.

    Args:
        gain: 0..1, the share of what the layer leaves unexplained that a bend must explain.
    """
    count = len(layer.poses)
    box = _box(scene.paint[3])
    bend = torch.zeros(count, KNOTS**2, 2)
    for width, size_px, share in _LEVELS:
        seen = scene.shrunk(size_px)
        seen = seen.blurred(width * seen.frames.shape[-1])
        unposed = points_back(layer.poses, layer.centre, seen.frames)
        for _ in range(_ITERATIONS):
            bend = bend + _step(seen, unposed, bend, box)
        before, after = (
            float(frame_costs(seen, source).mean())
            for source in (unposed, _bent(unposed, bend, box))
        )
        if after > (1.0 - share * gain) * before:
            return layer
    return replace(layer, model="elastic", bend=bend.reshape(count, KNOTS, KNOTS, 2), box=box)


def _step(scene: Scene, unposed: Tensor, bend: Tensor, box: Tensor) -> Tensor:
    """One step of all frames, [P, KNOTS², 2]."""
    source = _bent(unposed, bend, box)
    error = scene.frames - compose(scene, source)
    spread = error_spread(error, scene)
    certain = scene.weight / (1.0 + error.square().sum(1) / spread)
    certain = certain / (spread * scene.patch_px**2)
    slopes = [
        moved[:, :3] - moved[:, 3:] * scene.behind
        for moved in (sample(slope, source) for slope in gradients(scene.paint))
    ]
    stiff = _stiffness()
    ring = JOLT**-2 * torch.eye(2 * KNOTS**2)
    middle = 0.5 * (bend.roll(1, 0) + bend.roll(-1, 0))
    steps = torch.zeros_like(bend)
    along_x, along_y = slopes
    products = [
        (certain * (one * other).sum(1)).flatten(1)
        for one, other in ((along_x, along_x), (along_x, along_y), (along_y, along_y))
    ]
    pulls = torch.stack([(certain * (way * error).sum(1)).flatten(1) for way in slopes], -1)
    for frame in range(1, len(bend)):
        basis = bend_basis(source[frame].flatten(0, 1), KNOTS, box)
        xx, xy, yy = (basis.T @ (product[frame, :, None] * basis) for product in products)
        normal = torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], 1)
        normal = normal.reshape(stiff.shape)  # [knot, axis, knot, axis]
        now = bend[frame].flatten()
        right = -(basis.T @ pulls[frame]).flatten() - stiff @ now
        right = right + ring @ (middle[frame].flatten() - now)
        steps[frame] = torch.linalg.solve(normal + stiff + ring, right).reshape(-1, 2)
    return steps


def _bent(unposed: Tensor, bend: Tensor, box: Tensor) -> Tensor:
    """[P, h, w, 2]: the points before bend and pose; the bend is small and smooth, so two rounds do."""
    points = unposed.flatten(1, 2)
    source = points
    for _ in range(2):
        basis = torch.stack([bend_basis(part, KNOTS, box) for part in source])
        source = points - basis @ bend
    return source.reshape(unposed.shape)


def _box(cover: Tensor) -> Tensor:
    """[4]: left, top, right, bottom of the object and a margin, in half-widths."""
    points = lattice(*cover.shape)[cover > 0.05]
    low, high = points.amin(0), points.amax(0)
    margin = _MARGIN * (high - low) + 2.0 / cover.shape[1]
    return torch.cat([low - margin, high + margin])


def _stiffness() -> Tensor:
    """[2 n², 2 n²]: what size and unevenness cost, knots row by row with x and y beside each other."""
    identity = torch.eye(KNOTS)
    second = identity[2:] - 2.0 * identity[1:-1] + identity[:-2]
    uneven = torch.kron(second.T @ second, identity) + torch.kron(identity, second.T @ second)
    plane = torch.eye(KNOTS**2) / LARGEST**2 + uneven / UNEVEN**2
    return torch.kron(plane, torch.eye(2))
