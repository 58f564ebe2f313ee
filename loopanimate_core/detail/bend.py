"""Bends at the knots of a cubic B-spline: those of `modes.py`, and what these cannot follow.

Gauss-Newton as in `fit.py`, frame by frame; a stiffness along the grid and round the ring keeps the further
displacement small and smooth, and each frame is pulled towards the middle of its neighbours as they were
one iteration before.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from . import modes
from .canvas import lattice
from .chunks import over_frames
from .fit import Scene, compose, error_spread, frame_costs, gradients, sample
from .maps import BEND_ROUNDS, bend_at, bend_basis, posed_back
from .motion import LayerMotion
from .pose import AFFINE, Anchor

KNOTS = 6
LARGEST, UNEVEN, JOLT = 0.1, 0.04, 0.04  # half-widths: usual size, and second differences
_LEVELS = ((1 / 24, 48, 0.25), (1 / 48, 96, 0.5), (1 / 96, 96, 1.0))
"""Blur over the width, the fit's size in pixels, and the share of the gain that must be reached by then."""
_ITERATIONS = 4  # each
_MARGIN = 0.15  # of the box around the object
_SAMPLES = 24  # along each side of the box, to turn a bend into knots


def as_layer(model: str, poses: Tensor, anchor: Anchor) -> LayerMotion:
    """The layer of fitted poses [P, 6] or [P, 12] as the rest of the package knows it."""
    if model != "elastic":
        return LayerMotion(model, poses[:, :AFFINE], anchor.centre)
    box = _with_margin(anchor.box)
    rows, columns = (torch.linspace(float(box[i]), float(box[i + 2]), _SAMPLES) for i in (1, 0))
    points = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    shifts = modes.shift(points[None], poses[:, AFFINE:].float(), anchor.box)  # [P, n, n, 2]
    basis = bend_basis(points.reshape(-1, 2), KNOTS, box)
    knots = torch.linalg.pinv(basis) @ shifts.flatten(1, 2)  # [P, KNOTS², 2]
    knots[0] = 0.0
    bend = knots.reshape(-1, KNOTS, KNOTS, 2)
    return LayerMotion(model, poses[:, :AFFINE], anchor.centre, bend, box)


def fit_bend(scene: Scene, layer: LayerMotion, gain: float) -> LayerMotion:
    """The layer with a further bend, none in frame 0; or as it is, if that explains too little.

    Args:
        gain: 0..1, the share of what the layer leaves unexplained that the bend must explain.
    """
    count = len(layer.poses)
    box = _with_margin(box_around(scene.paint[3])) if layer.box is None else layer.box
    start = torch.zeros(count, KNOTS**2, 2)
    if layer.bend is not None:
        start = layer.bend.reshape(count, -1, 2)
    bend = start
    for width, size_px, share in _LEVELS:
        seen = scene.shrunk(size_px)
        seen = seen.blurred(width * seen.frames.shape[-1])
        unposed = posed_back(layer, seen.frames)
        for _ in range(_ITERATIONS):
            bend = bend + _step(seen, unposed, start, bend, box)
        before, after = (
            float(frame_costs(seen, _bent(unposed, knots, box)).mean()) for knots in (start, bend)
        )
        if after > (1.0 - share * gain) * before:
            return layer
    return replace(layer, model="elastic", bend=bend.reshape(count, KNOTS, KNOTS, 2), box=box)


def _step(scene: Scene, unposed: Tensor, start: Tensor, bend: Tensor, box: Tensor) -> Tensor:
    """One step of all frames, [P, KNOTS², 2]; what counts as bent is `bend` less `start`."""
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
    further = bend - start
    middle = 0.5 * (further.roll(1, 0) + further.roll(-1, 0))
    steps = torch.zeros_like(bend)
    along_x, along_y = slopes
    products = [
        (certain * (one * other).sum(1)).flatten(1)
        for one, other in ((along_x, along_x), (along_x, along_y), (along_y, along_y))
    ]
    pulls = torch.stack([(certain * (way * error).sum(1)).flatten(1) for way in slopes], -1)

    def solve(part: slice) -> None:
        for frame in range(max(1, part.start), part.stop):
            solve_one(frame)

    def solve_one(frame: int) -> None:
        basis = bend_basis(source[frame].flatten(0, 1), KNOTS, box)
        xx, xy, yy = (basis.T @ (product[frame, :, None] * basis) for product in products)
        normal = torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], 1)
        normal = normal.reshape(stiff.shape)  # [knot, axis, knot, axis]
        now = further[frame].flatten()
        right = -(basis.T @ pulls[frame]).flatten() - stiff @ now
        right = right + ring @ (middle[frame].flatten() - now)
        steps[frame] = torch.linalg.solve(normal + stiff + ring, right).reshape(-1, 2)

    over_frames(solve, len(bend), scene.frames[0, 0].numel())
    return steps


def _bent(unposed: Tensor, bend: Tensor, box: Tensor) -> Tensor:
    """[P, h, w, 2]: the points before bend and pose."""
    knots = bend.unflatten(1, (KNOTS, KNOTS))

    def bent(at: slice) -> Tensor:
        points = unposed[at].flatten(1, 2)
        source = points
        for _ in range(BEND_ROUNDS):
            source = points - bend_at(source, knots[at], box)
        return source.reshape(unposed[at].shape)

    return torch.cat(over_frames(bent, len(unposed), unposed[0, ..., 0].numel()))


def box_around(cover: Tensor) -> Tensor:
    """[4]: left, top, right, bottom of what is covered in `cover` [h, w], in half-widths."""
    points, pixel = lattice(*cover.shape), 1.0 / cover.shape[1]
    inside = points[cover > 0.05]
    if not len(inside):
        inside = points.flatten(0, 1)
    return torch.cat([inside.amin(0) - pixel, inside.amax(0) + pixel])


def _with_margin(box: Tensor) -> Tensor:
    margin = _MARGIN * (box[2:] - box[:2])
    return torch.cat([box[:2] - margin, box[2:] + margin])


def _stiffness() -> Tensor:
    """[2 n², 2 n²]: what size and unevenness cost, knots row by row with x and y beside each other."""
    identity = torch.eye(KNOTS)
    second = identity[2:] - 2.0 * identity[1:-1] + identity[:-2]
    uneven = torch.kron(second.T @ second, identity) + torch.kron(identity, second.T @ second)
    plane = torch.eye(KNOTS**2) / LARGEST**2 + uneven / UNEVEN**2
    return torch.kron(plane, torch.eye(2))
