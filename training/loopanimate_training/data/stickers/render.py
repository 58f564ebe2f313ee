"""Drawing stickers on backgrounds, moved as a prompt says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .motion import FIELDS, Deformation, Motion, deformation_at

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.15, 0.18),
    "orange": (0.96, 0.55, 0.12),
    "yellow": (0.97, 0.84, 0.18),
    "green": (0.20, 0.66, 0.28),
    "teal": (0.10, 0.60, 0.60),
    "blue": (0.15, 0.38, 0.85),
    "purple": (0.52, 0.25, 0.75),
    "pink": (0.95, 0.45, 0.68),
    "brown": (0.50, 0.32, 0.20),
    "grey": (0.50, 0.50, 0.50),
    "white": (0.96, 0.96, 0.96),
    "black": (0.08, 0.08, 0.08),
}
BACKGROUND_KINDS = ("pastel", "saturated", "gradient", "noise")


@dataclass(frozen=True)
class Placement:
    """Place of the sprite at rest: its centre in half-sides of the picture from the middle, and its side as a share
    of the picture's shorter side."""

    x: float = 0.0
    y: float = 0.0
    scale: float = 0.6


@dataclass(frozen=True)
class Scene:
    """A picture taken apart into an object and what is behind it.

    Attributes:
        layer: `[4, H, W]` in 0..1, the object in its place with premultiplied alpha.
        background: `[H, W, 3]` in 0..1.
    """

    layer: Tensor = field(repr=False)
    background: Tensor = field(repr=False)

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.background.shape[0], self.background.shape[1]

    @cached_property
    def anchors(self) -> Anchors:
        """Of the object: the box around its opaque pixels."""
        return Anchors.of(self.layer[3])

    def still(self) -> tuple[Tensor, Tensor]:
        """The picture [H, W, 3] and the object's mask [H, W] bool."""
        alpha = self.layer[3]
        return self.layer[:3].permute(1, 2, 0) + (1.0 - alpha[..., None]) * self.background, (
            alpha > 0.5
        )

    def draw(self, deformation: Deformation) -> tuple[Tensor, Tensor]:
        """Frames [n, H, W, 3] in 0..1 and masks [n, H, W] bool of the deformed object."""
        return compose(self.layer[None], deformation, self.background, self.anchors)


@dataclass(frozen=True)
class Anchors:
    """The box around an object, in half-sides of the picture from its middle: centre and half extents."""

    x: float
    y: float
    half_width: float
    half_height: float

    @staticmethod
    def of(alpha: Tensor) -> Anchors:
        """The box of what is more than half opaque in `alpha` [H, W]; the whole picture if nothing is."""
        (x_axis, y_axis), opaque = axes(*alpha.shape), alpha > 0.5
        across, down = x_axis[opaque.any(0)], y_axis[opaque.any(1)]
        if not len(across):
            across, down = x_axis, y_axis
        left, right, top, bottom = (float(v) for v in (across[0], across[-1], down[0], down[-1]))
        pixel = float(x_axis[1] - x_axis[0])
        return Anchors(
            0.5 * (left + right),
            0.5 * (top + bottom),
            0.5 * (right - left + pixel),
            0.5 * (bottom - top + pixel),
        )


def half_side_px(height_px: int, width_px: int) -> float:
    """The unit of length: half the square root of the area, so that pictures of all shapes move as far."""
    return 0.5 * math.sqrt(height_px * width_px)


def axes(height_px: int, width_px: int) -> tuple[Tensor, Tensor]:
    """Pixel centres across [W] and down [H], in half-sides from the middle."""
    unit = half_side_px(height_px, width_px)
    across = torch.arange(width_px, dtype=torch.float32) + (0.5 - 0.5 * width_px)
    down = torch.arange(height_px, dtype=torch.float32) + (0.5 - 0.5 * height_px)
    return across / unit, down / unit


def premultiplied(sprites: np.ndarray, size_px: int) -> Tensor:
    """[n, S, S, 4] uint8 with straight alpha → [n, 4, size_px, size_px] float, colours multiplied by alpha."""
    planes = torch.from_numpy(np.array(sprites)).permute(0, 3, 1, 2).float().div_(255.0)
    planes[:, :3] *= planes[:, 3:]
    if size_px == planes.shape[-1]:
        return planes
    return F.interpolate(
        planes, size=(size_px, size_px), mode="bilinear", antialias=True, align_corners=False
    )


def place(sprites: np.ndarray, placement: Placement, height_px: int, width_px: int) -> Tensor:
    """Sprites [n, S, S, 4] uint8 at their place in a picture: layers [n, 4, H, W], premultiplied."""
    side_px = max(8, round(placement.scale * min(height_px, width_px)))
    planes = premultiplied(sprites, side_px)
    unit, (x_axis, y_axis) = half_side_px(height_px, width_px), axes(height_px, width_px)
    x, y = (
        (axis - at) * (2.0 * unit / side_px)
        for axis, at in ((x_axis, placement.x), (y_axis, placement.y))
    )
    grid = torch.stack([x.expand(height_px, -1), y[:, None].expand(-1, width_px)], -1)
    return F.grid_sample(planes, grid.expand(len(planes), -1, -1, -1), align_corners=False)


def render_clip(
    sprite: np.ndarray,
    motion: Motion,
    times_s: Tensor,
    background: Tensor,
    placement: Placement,
) -> tuple[Tensor, Tensor]:
    """Move one sprite [S, S, 4] over `background` [H, W, 3].

    Returns frames [n, H, W, 3] in 0..1 and masks [n, H, W] bool (alpha above one half), one per entry of `times_s`.
    """
    layer = place(sprite[None], placement, *background.shape[:2])[0]
    return Scene(layer, background).draw(deformation_at(motion, times_s))


def compose(
    layers: Tensor, deformation: Deformation, background: Tensor, anchors: Anchors
) -> tuple[Tensor, Tensor]:
    """Warp premultiplied `layers` [1 or n, 4, H, W] by `deformation` [n] and lay them over `background`.

    What is cut off by the picture's edge goes on beyond it with the edge's colours.
    """
    height_px, width_px = background.shape[:2]
    grid = _sampling_grid(deformation, anchors, height_px, width_px)
    frames = grid.shape[0]
    if layers.shape[0] == 1:  # sample all frames as one tall picture, without copies of the layer
        tall = grid.reshape(1, frames * height_px, width_px, 2)
        warped = F.grid_sample(layers, tall, padding_mode="border", align_corners=False)
        warped = warped.reshape(4, frames, height_px, width_px).permute(1, 2, 3, 0)
    else:
        warped = F.grid_sample(layers, grid, padding_mode="border", align_corners=False)
        warped = warped.permute(0, 2, 3, 1)
    alpha = warped[..., 3:]
    return warped[..., :3] + (1.0 - alpha) * background, alpha[..., 0] > 0.5


def _sampling_grid(
    deformation: Deformation, anchors: Anchors, height_px: int, width_px: int
) -> Tensor:
    """[n, H, W, 2]: for each point of the picture, the point (-1..1) of the layer that moves there.

    Undoes the steps of `Deformation`, last to first.
    """
    x_axis, y_axis = axes(height_px, width_px)
    d = Deformation(*(getattr(deformation, name)[:, None, None] for name in FIELDS))
    x = x_axis - d.x
    y = y_axis[:, None] - d.y
    x, y = x - anchors.x, y - (anchors.y + anchors.half_height)  # from the middle of the base
    x, y = _turned_back(x, y, d.tip_rad)
    x, y = _turned_back(x, y + anchors.half_height, d.angle_rad, d.log_scale)
    y = anchors.half_height - y  # upwards from the base
    tall = 2.0 * anchors.half_height
    above = y / tall
    x = x - tall * (d.lean * above + d.bend * above * above.abs())
    across = math.pi * x / anchors.half_width
    y = y - tall * (d.wave_sin * across.sin() + d.wave_cos * across.cos())
    x = anchors.x + x * (-d.widen).exp()
    y = anchors.y + anchors.half_height - y * (-d.heighten).exp()
    unit = half_side_px(height_px, width_px)
    return torch.stack([x * (2.0 * unit / width_px), y * (2.0 * unit / height_px)], -1)


def displaced(
    points: tuple[Tensor, Tensor], deformation: Deformation, anchors: Anchors
) -> tuple[Tensor, Tensor]:
    """Where `deformation` [n] moves points of the still, x and y [k] in half-sides from the middle: both [n, k]."""
    d = Deformation(*(getattr(deformation, name)[:, None] for name in FIELDS))
    x = (points[0] - anchors.x) * d.widen.exp()
    y = (anchors.y + anchors.half_height - points[1]) * d.heighten.exp()  # upwards from the base
    tall, across = 2.0 * anchors.half_height, math.pi * x / anchors.half_width
    y = y + tall * (d.wave_sin * across.sin() + d.wave_cos * across.cos())
    above = y / tall
    x = x + tall * (d.lean * above + d.bend * above * above.abs())
    x, y = _turned_back(x, anchors.half_height - y, -d.angle_rad, -d.log_scale)
    x, y = _turned_back(x, y - anchors.half_height, -d.tip_rad)
    return x + anchors.x + d.x, y + anchors.y + anchors.half_height + d.y


def _turned_back(
    x: Tensor, y: Tensor, angle_rad: Tensor, log_scale: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """The inverse of a clockwise turn and a scaling around the origin."""
    shrink = torch.exp(-torch.as_tensor(log_scale))
    cosine, sine = angle_rad.cos() * shrink, angle_rad.sin() * shrink
    return cosine * x + sine * y, -sine * x + cosine * y


def draw_background(
    rng: np.random.Generator, kind: str, height_px: int, width_px: int
) -> tuple[Tensor, str]:
    """A background [H, W, 3] in 0..1 of one of `BACKGROUND_KINDS`, and the name of its colour ("" if it has
    several)."""
    names = list(COLOURS)
    first, second = (names[i] for i in rng.choice(len(names), 2, replace=False))
    if kind in ("pastel", "saturated"):
        colour = _shade(rng, first, pastel=kind == "pastel")
        return colour.expand(height_px, width_px, 3), first
    if kind == "gradient":
        angle = rng.uniform(0.0, 2.0 * np.pi)
        across, down = (torch.linspace(-0.5, 0.5, side) for side in (width_px, height_px))
        ramp = 0.5 + (
            float(np.cos(angle)) * across[None, :] + float(np.sin(angle)) * down[:, None]
        ) / np.sqrt(2.0)
        ends = (
            _shade(rng, first, pastel=bool(rng.integers(2))),
            _shade(rng, second, pastel=bool(rng.integers(2))),
        )
        return torch.lerp(ends[0], ends[1], ramp[..., None].float()), ""
    coarse = torch.from_numpy(rng.uniform(0.15, 0.95, (1, 3, 3, 3))).float()
    smooth = F.interpolate(coarse, size=(height_px, width_px), mode="bicubic", align_corners=True)
    return smooth[0].permute(1, 2, 0).clamp(0.0, 1.0), ""


def _shade(rng: np.random.Generator, name: str, *, pastel: bool) -> Tensor:
    colour = np.asarray(COLOURS[name]) + rng.normal(0.0, 0.04, 3)
    if pastel:
        colour = 0.35 * colour + 0.65
    return torch.from_numpy(colour.clip(0.0, 1.0)).float()
