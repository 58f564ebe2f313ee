"""Fitting the poses of all frames of a loop together: Gauss-Newton on the frames' colours.

One layer, the object as the model drew it in frame 0, is moved over what lies behind it. With W the map from a
frame's pixel to frame 0, the drawn frame is X = P(W) + (1 - a(W)) B, and its slope along W is D = ∇P - B ∇a. W may
end in a bend (`modes.py`). Each frame adds its robustly weighted normal equations, a penalty on the second difference of the poses joins them
round the ring, and frame 0 stays at rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import modes
from .canvas import lattice
from .chunks import over_frames
from .pose import AFFINE, Anchor, generators, inverse, matrices

PATCH_PX = (
    8  # errors of an autoencoder are alike within a latent: so many pixels a side say one thing
)
JOLT = 0.03  # half-widths: how far a usual frame is from the middle of its neighbours
BENT = 0.3  # half-widths: the usual size of a bend
LOOSE = 1e-3  # a squared residual that costs one half
OUTLIER = 2.0  # of the usual squared residual: an outlier, which costs one half while fitting
OUTLIER_AT_REST = 10.0  # the same over a background that is at rest and so well known
MIN_SPREAD = 1e-3  # of colour residuals, 0..1: below a grey level nothing is an outlier


@dataclass(frozen=True)
class Scene:
    """What a fit compares.

    Attributes:
        frames: [P, 3, h, w].
        paint: [4, h, w], the layer's colours times its cover, and the cover, in frame 0.
        behind: [1 or P, 3, h, w], what lies behind it.
        weight: [1 or P, h, w], how much a pixel counts.
        patch_px: side of the square of pixels that counts as one measurement.
        outlier: a squared residual so many times the usual one costs one half while fitting.
    """

    frames: Tensor
    paint: Tensor
    behind: Tensor
    weight: Tensor
    patch_px: float = PATCH_PX
    outlier: float = OUTLIER

    def blurred(self, sigma_px: float) -> Scene:
        """The same scene seen less sharply."""
        return Scene(
            blur(self.frames, sigma_px),
            blur(self.paint[None], sigma_px)[0],
            blur(self.behind, sigma_px),
            self.weight,
            self.patch_px,
            self.outlier,
        )

    def part(self, at: slice) -> Scene:
        """The same scene for some of the frames."""
        behind = self.behind if len(self.behind) == 1 else self.behind[at]
        weight = self.weight if len(self.weight) == 1 else self.weight[at]
        return replace(self, frames=self.frames[at], behind=behind, weight=weight)

    def over_frames(self, work: Callable[[slice], Any]) -> list[Any]:
        """What `work` makes of each chunk of the frames."""
        return over_frames(work, len(self.frames), self.frames[0, 0].numel())

    def shrunk(self, size_px: int) -> Scene:
        """The same scene at no more than `size_px` along the longer side."""
        height, width = self.frames.shape[-2:]
        scale = size_px / max(height, width)
        if scale >= 1.0:
            return self
        size = (max(1, round(height * scale)), max(1, round(width * scale)))

        def shrunk(planes: Tensor) -> Tensor:
            return F.interpolate(planes, size, mode="bilinear", antialias=True, align_corners=False)

        return Scene(
            shrunk(self.frames),
            shrunk(self.paint[None])[0],
            shrunk(self.behind),
            (shrunk(self.weight[:, None])[:, 0] > 0.5).float(),
            self.patch_px * scale,
            self.outlier,
        )


def fit_poses(
    scene: Scene,
    poses: Tensor,
    anchor: Anchor,
    columns: Sequence[int],
    iterations: int,
) -> Tensor:
    """Better poses [P, n] (six numbers, then those of the bend); only the parameters `columns` are changed, and frame
    0 stays at rest."""
    count, free = len(poses), list(columns)
    if not free or count < 2:
        return poses
    posed = [column for column in free if column < AFFINE]
    bends = torch.tensor([column >= AFFINE for column in free])
    metric = torch.tensor([1.0, 1.0, *[anchor.radius] * 4, *[1.0] * modes.COUNT])
    metric = metric.double()[free] / JOLT
    prior = bends.double() / BENT**2
    bending = _bending(count)
    slopes = torch.cat(gradients(scene.paint))
    for _ in range(iterations):
        way = _way_back(poses, anchor, scene.frames)
        amounts = poses[:, AFFINE:].float() if bool(bends.any()) else None
        normal, pull = _normal_equations(scene, slopes, way, anchor, amounts)
        basis = torch.zeros(count, len(free), normal.shape[1], dtype=torch.float64)
        basis[:, : len(posed), :AFFINE] = -generators(poses, anchor.centre, posed).flatten(2)
        basis[:, len(posed) :, AFFINE:] = torch.eye(normal.shape[1] - AFFINE).double()
        blocks = basis @ normal @ basis.transpose(1, 2)
        diagonal = blocks.diagonal(dim1=1, dim2=2)
        blocks = blocks + torch.diag_embed(1e-3 * diagonal + 1e-6 + prior)
        right = (basis @ pull)[..., 0] - bending @ poses[:, free] * metric.square()
        right = right - prior * poses[:, free]
        poses = poses.clone()
        poses[:, free] += _solve_ring(blocks, bending, metric.square(), right)
    return poses


def _normal_equations(
    scene: Scene,
    slopes: Tensor,
    way: Callable[[slice], Tensor],
    anchor: Anchor,
    amounts: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """[P, n, n] and [P, n, 1] of the six entries of W and, with the `amounts` [P, 6] of a bend, of these; each pixel
    weighted by how far it is to be trusted.

    Args:
        slopes: [8, h, w], of the paint along x, then along y.
        way: the points of frame 0 that a chunk of frames shows.
    """

    def errors(at: slice) -> tuple[Tensor, Tensor]:
        points, part = way(at), scene.part(at)
        return points, part.frames - compose(part, points)

    chunks = scene.over_frames(errors)
    points, error = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    spread = error_spread(error, scene)

    def equations(at: slice) -> tuple[Tensor, Tensor]:
        own = None if amounts is None else amounts[at]
        part = scene.part(at)
        certain = part.weight / (1.0 + error[at].square().sum(1) / spread)
        certain = certain / (spread * scene.patch_px**2)
        along_x, along_y, by_x, by_y = _slopes(part.behind, slopes, points[at], anchor, own)
        return _summed(along_x, along_y, by_x, by_y, error[at], certain)

    chunks = scene.over_frames(equations)
    normal, pull = (torch.cat(parts).double() for parts in zip(*chunks, strict=True))
    return normal, pull


def _summed(
    along_x: Tensor, along_y: Tensor, by_x: Tensor, by_y: Tensor, error: Tensor, certain: Tensor
) -> tuple[Tensor, Tensor]:
    """The normal equations [P, 2 k, 2 k] and [P, 2 k, 1] of the slopes `along_x · by_x` and `along_y · by_y`.

    All k slopes of a pixel along x are the same three colours times a number each. The colours are summed first.

    Args:
        along_x, along_y, error: [P, 3, h, w].
        by_x, by_y: [P, k, h, w]; the first three belong to W, the others to the bend, which come last.
        certain: [P, h, w].
    """

    def colours(one: Tensor, other: Tensor) -> Tensor:
        return ((one * other).sum(1) * certain).flatten(1)[:, None]

    by_x, by_y = by_x.flatten(2), by_y.flatten(2)
    across = (by_x * colours(along_x, along_y)) @ by_y.mT
    columns = torch.cat([(by_x * colours(along_x, along_x)) @ by_x.mT, across], 2)
    below = torch.cat([across.mT, (by_y * colours(along_y, along_y)) @ by_y.mT], 2)
    normal = torch.cat([columns, below], 1)
    pull = torch.cat([by_x @ colours(along_x, error).mT, by_y @ colours(along_y, error).mT], 1)
    count = by_x.shape[1]
    of_pose = torch.arange(2 * count) % count < AFFINE // 2
    order = torch.cat([of_pose.nonzero(), (~of_pose).nonzero()])[:, 0]
    return normal[:, order][:, :, order], pull[:, order]


def _solve_ring(blocks: Tensor, bending: Tensor, metric: Tensor, right: Tensor) -> Tensor:
    """Solve (blocks + bending ⊗ metric) x = right round the ring, x = 0 in frame 0.

    `bending` couples frames up to two apart. Without frame 0 the ring is a strip; folded in its middle (1, P-1, 2,
    P-2, …) and cut into groups of four frames, the system is block tridiagonal: its time grows with the loop and
    not with the loop's cube.

    Args:
        blocks: [P, n, n] of the frames by themselves.
        bending: [P, P].
        metric: [n], the diagonal of the coupling.
        right: [P, n].
    """
    count, free = right.shape
    ahead = torch.arange(1, count)
    order = torch.stack([ahead, ahead.flip(0)], 1).flatten()[: count - 1]
    coupling = torch.diag(metric)

    def system(rows: Tensor, columns: Tensor) -> Tensor:
        return torch.kron(bending[rows][:, columns].contiguous(), coupling)

    groups = order.split(4)
    links = [system(group, after) for group, after in pairwise(groups)]
    reduced: list[tuple[Tensor, Tensor]] = []
    for number, group in enumerate(groups):
        matrix = torch.block_diag(*blocks[group]) + system(group, group)
        target = right[group].flatten()[:, None]
        if number:
            before, link = reduced[-1], links[number - 1]
            factor = torch.linalg.solve(before[0], torch.cat([link, before[1]], 1))
            matrix, target = matrix - link.T @ factor[:, :-1], target - link.T @ factor[:, -1:]
        reduced.append((matrix, target))
    solution = torch.zeros_like(right)
    for number in reversed(range(len(groups))):
        matrix, target = reduced[number]
        if number < len(links):
            target = target - links[number] @ solution[groups[number + 1]].flatten()[:, None]
        solution[groups[number]] = torch.linalg.solve(matrix, target).reshape(-1, free)
    return solution


def cost(scene: Scene, poses: Tensor, anchor: Anchor, loose: float = LOOSE) -> Tensor:
    """[P]: how badly the layer with those poses explains each frame, see `frame_costs`."""
    way = _way_back(poses, anchor, scene.frames)

    def costs(at: slice) -> Tensor:
        return frame_costs(scene.part(at), way(at), loose)

    return torch.cat(scene.over_frames(costs))


def frame_costs(scene: Scene, points: Tensor, loose: float = LOOSE) -> Tensor:
    """[P], 0..1: Geman and McClure's loss of the layer shown at `points` [P, h, w, 2].

    Args:
        loose: the squared residual that costs one half.
    """
    squared = (scene.frames - compose(scene, points)).square().sum(1)
    weight = scene.weight.expand_as(squared)
    return (weight * squared / (squared + loose)).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)


def points_back(poses: Tensor, anchor: Anchor, frames: Tensor) -> Tensor:
    """[P, h, w, 2]: the point of frame 0 that every pixel of the frames shows."""
    way = _way_back(poses, anchor, frames)
    return torch.cat(over_frames(way, len(poses), frames[0, 0].numel()))


def _way_back(poses: Tensor, anchor: Anchor, frames: Tensor) -> Callable[[slice], Tensor]:
    """`points_back` for a chunk of the frames."""
    back = inverse(matrices(poses, anchor.centre)).float()
    points = lattice(*frames.shape[-2:])
    amounts = poses[:, AFFINE:].float()

    def way(at: slice) -> Tensor:
        unposed = (
            torch.einsum("pij,hwj->phwi", back[at, :, :2], points) + back[at, None, None, :, 2]
        )
        return modes.undone(unposed, amounts[at], anchor.box) if amounts.shape[1] else unposed

    return way


def compose(scene: Scene, points: Tensor) -> Tensor:
    """[P, 3, h, w]: the layer moved over what lies behind it."""
    moved = sample(scene.paint, points)
    return moved[:, :3] + (1.0 - moved[:, 3:]) * scene.behind


def sample(picture: Tensor, points: Tensor, mode: str = "bilinear") -> Tensor:
    """`picture` [C, h, w] at `points` [P, H, W, 2] in half-widths → [P, C, H, W]; its border goes on."""
    height, width = picture.shape[-2:]
    count, rows, columns = points.shape[:3]
    grid = (points * torch.tensor([1.0, width / height])).reshape(1, count * rows, columns, 2)
    drawn = F.grid_sample(picture[None], grid, mode, "border", align_corners=False)
    return drawn[0].unflatten(1, (count, rows)).transpose(0, 1)


def gradients(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes of [C, h, w] along x and y, a half-width."""
    unit = 0.25 * picture.shape[-1]
    padded = F.pad(picture, (1, 1, 1, 1), mode="replicate")
    along_x = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    along_y = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    return along_x * unit, along_y * unit


def blur(pictures: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur of [N, C, h, w]."""
    if sigma_px <= 0.0:
        return pictures
    reach = max(1, math.ceil(3.0 * sigma_px))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma_px).square())
    kernel = kernel / kernel.sum()
    planes = pictures.flatten(0, 1)[:, None]
    planes = F.pad(planes, (reach, reach, reach, reach), mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel[None, None, :, None]), kernel[None, None, None])
    return planes[:, 0].unflatten(0, pictures.shape[:2])


def _slopes(
    behind: Tensor, slopes: Tensor, points: Tensor, anchor: Anchor, amounts: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slopes of the drawn frame along x and y, [P, 3, h, w] each, and what they are multiplied by for the entries of
    W, row by row, and for the bend, [P, 3 or 6, h, w] each."""
    moved = sample(slopes, points)
    along_x = moved[:, :3] - moved[:, 3:4] * behind
    along_y = moved[:, 4:7] - moved[:, 7:] * behind
    shapes_x: tuple[Tensor, ...] = ()
    shapes_y: tuple[Tensor, ...] = ()
    if (
        amounts is not None
    ):  # the chain rule through the bend, from frame 0 to where the pose takes over
        across, down = (slope[:, None] for slope in modes.slopes(points, amounts, anchor.box))
        folded = (1.0 - across * down).clamp(min=0.1)
        along_x, along_y = (
            (along_x - down * along_y) / folded,
            (along_y - across * along_x) / folded,
        )
        shapes_x, shapes_y = modes.shapes(points, anchor.box)
        points = points + modes.shift(points, amounts, anchor.box)
    x, y = points.unbind(-1)
    of_pose = (x, y, torch.ones_like(x))
    by_x, by_y = (
        torch.stack([*of_pose, *(-shape for shape in shapes)], 1) for shapes in (shapes_x, shapes_y)
    )
    return along_x, along_y, by_x, by_y


def error_spread(error: Tensor, scene: Scene) -> Tensor:
    """The squared residual beyond which a pixel is an outlier, from the usual one.

    Over a background at rest it is well beyond the usual: a model that smears what turns leaves the motion
    to the few pixels at the rim, whose residuals are large, while the middle seems to stay.
    """
    return (scene.outlier * usual_error(error, scene.weight)).clamp(min=MIN_SPREAD**2)


def usual_error(error: Tensor, weight: Tensor) -> Tensor:
    """The median squared residual of the pixels that count; 0 if none does."""
    squared = error.square().sum(1)
    counted = squared[(weight > 0.5).expand_as(squared)]
    return counted.median() if counted.numel() else squared.new_tensor(0.0)


def _bending(count: int) -> Tensor:
    """[P, P]: the sum of squared second differences round the ring, as a matrix."""
    identity = torch.eye(count, dtype=torch.float64)
    second = identity.roll(1, 0) - 2.0 * identity + identity.roll(-1, 0)
    return second.T @ second
