"""Draw the sample pictures that ship with LoopAnimate: six soft, rounded stickers.

    python assets/draw_pictures.py [FOLDER]

A picture is a stack of solids. Each is an outline, inflated to a height field and lit from the upper
left, so that flat shapes look like glazed clay. Coordinates run from -1 to 1, x right, y down.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE_PX = 512
DRAWN_PX = 3 * SIDE_PX  # drawn at three times the size and averaged down
MAX_BYTES = 150_000
FOLDER = Path(__file__).parent.parent / "loopanimate_core" / "data" / "pictures"

Array = NDArray[Any]  # a picture [H, W] or [H, W, 3] of floats
Mask = NDArray[Any]  # [H, W] of bools
Points = NDArray[Any]  # [N, 2] of floats
Colour = str | tuple[str, str]  # one colour, or one at the top and one at the bottom

LIGHT = np.array([-0.42, -0.62, 0.66])
LIGHT = LIGHT / np.linalg.norm(LIGHT)
HALFWAY = LIGHT + np.array([0, 0, 1])  # between lamp and eye
HALFWAY = HALFWAY / np.linalg.norm(HALFWAY)


# Outlines: closed lines of points [N, 2]


def ellipse(x: float, y: float, rx: float, ry: float | None = None, turn: float = 0) -> Points:
    angle = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    points = np.stack([rx * np.cos(angle), (ry or rx) * np.sin(angle)], -1)
    return rotate(points, turn) + np.array([x, y])


def rounded(points: Sequence[tuple[float, float]], sharpness: float = 0.5) -> Points:
    """A smooth closed line through the points (Catmull-Rom spline)."""
    knots = np.array(points, float)
    before, after, beyond = (np.roll(knots, -k, 0) for k in (-1, 1, 2))
    t = np.linspace(0, 1, 30, endpoint=False)[None, :, None]
    out, back = sharpness * (after - before)[:, None], sharpness * (beyond - knots)[:, None]
    start, end = knots[:, None], after[:, None]
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * out
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * back
    )
    return curve.reshape(-1, 2)


def mirrored(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The right half of an outline, from top to bottom, and its mirror image."""
    return [*points, *((-x, y) for x, y in reversed(points) if x)]


def box(x: float, y: float, half_width: float, half_height: float, radius: float) -> Points:
    corners = []
    for angle, sx, sy in ((0.0, 1, 1), (90.0, -1, 1), (180.0, -1, -1), (270.0, 1, -1)):
        turn = np.radians(np.linspace(angle, angle + 90, 24))
        centre = (x + sx * (half_width - radius), y + sy * (half_height - radius))
        corners.append(np.stack([np.cos(turn), np.sin(turn)], -1) * radius + centre)
    return np.concatenate(corners)


def stroke(points: Sequence[tuple[float, float]], width: float, end_width: float = 0) -> Mask:
    """A line with round ends, swelling or thinning from `width` to `end_width`."""
    line = np.array(points, float)
    at = np.linspace(0, len(line) - 1, 160)
    x, y = (np.interp(at, range(len(line)), line[:, axis]) for axis in (0, 1))
    widths = np.linspace(width, end_width or width, len(at))
    drawn = np.zeros((DRAWN_PX, DRAWN_PX), bool)
    for px, py, w in zip(_smooth(x), _smooth(y), widths, strict=True):
        drawn |= inside(ellipse(px, py, w / 2))
    return drawn


def rotate(points: Points, degrees: float, about: tuple[float, float] = (0, 0)) -> Points:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (points - about) @ np.array([[c, s], [-s, c]]) + about


def inside(points: Points) -> Mask:
    """`[DRAWN_PX, DRAWN_PX]`: the inside of the outline."""
    image = Image.new("1", (DRAWN_PX, DRAWN_PX))
    pixels = [tuple(p) for p in (points + 1) * DRAWN_PX / 2]
    ImageDraw.Draw(image).polygon(pixels, fill=1)
    return np.array(image)


def _smooth(values: Array) -> Array:
    padded = np.pad(values, 24, mode="reflect", reflect_type="odd")
    weights = np.hanning(49).astype(float)
    return np.convolve(padded, weights / weights.sum(), mode="valid")


# Light and colour


def rgb(colour: str) -> Array:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)


def fade(mask: Mask, colour: Colour) -> Array:
    """`[H, W, 3]`: one colour, or a blend from the top of the mask to its bottom."""
    if isinstance(colour, str):
        return np.broadcast_to(rgb(colour), (*mask.shape, 3)).copy()
    rows = np.flatnonzero(mask.any(1))
    share = np.clip((np.arange(len(mask)) - rows[0]) / max(1, rows[-1] - rows[0]), 0, 1)
    column = (1 - share[:, None]) * rgb(colour[0]) + share[:, None] * rgb(colour[1])
    return np.repeat(column[:, None].astype(np.float32), mask.shape[1], axis=1)


def blur(image: Array, radius: float) -> Array:
    """Gaussian blur; `radius` in the drawing's units."""
    return cv2.GaussianBlur(image, (0, 0), max(0.3, radius * DRAWN_PX / 2))


def puff(mask: Mask, roundness: float) -> Array:
    """`[H, W, 3]` unit normals of the inflated mask: round within `roundness` of its edge."""
    reach = roundness * DRAWN_PX / 2
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    edge = 1 - np.clip(depth / reach, 0, 1)
    height = blur((np.sqrt(1 - edge**2) * reach).astype(np.float32), roundness * 0.22)
    normals = np.stack([-cv2.Sobel(height, cv2.CV_32F, *d, scale=1 / 8) for d in ((1, 0), (0, 1))])
    steep = np.concatenate([normals, np.ones((1, *mask.shape), np.float32)])
    return np.moveaxis(steep / np.linalg.norm(steep, axis=0), 0, -1)


@dataclass
class Sticker:
    """A stack of solids; `rgb` is not premultiplied by `alpha`."""

    rgb: Array = field(default_factory=lambda: np.ones((DRAWN_PX, DRAWN_PX, 3), np.float32))
    alpha: Array = field(default_factory=lambda: np.zeros((DRAWN_PX, DRAWN_PX), np.float32))

    def solid(
        self,
        shape: Points | Mask,
        colour: Colour,
        *,
        roundness: float = 0.15,
        gloss: float = 0.35,
        spots: Sequence[tuple[Mask, str, float]] = (),
        shadow: float = 0.3,
    ) -> Mask:
        """Add a lit solid on top; `spots` (mask, colour, softness) are painted on it first."""
        mask = shape if shape.dtype == bool else inside(shape)
        paint = fade(mask, colour)
        for spot, spot_colour, softness in spots:
            share = blur(spot.astype(np.float32), softness)[..., None]
            paint = paint * (1 - share) + rgb(spot_colour) * share
        self._shade_below(mask, shadow)
        self._lay(mask.astype(np.float32), _lit(paint, puff(mask, roundness), gloss))
        return mask

    def flat(
        self, shape: Points | Mask, colour: str, opacity: float = 1, softness: float = 0
    ) -> None:
        """Add a flat colour on top: eyes, mouths, blushes, highlights."""
        mask = (shape if shape.dtype == bool else inside(shape)).astype(np.float32)
        self._lay(blur(mask, softness) * opacity, np.broadcast_to(rgb(colour), self.rgb.shape))

    def eyes(self, x: float, y: float, gap: float, size: float, colour: str = "#33262b") -> None:
        """Two dark, tall eyes with a light in each."""
        for side in (-1, 1):
            centre = x + side * gap
            self.flat(ellipse(centre, y, size, size * 1.25), colour)
            self.flat(
                ellipse(centre, y + 0.55 * size, size * 0.7, size * 0.45), "#8a6a63", 0.35, 0.01
            )
            self.flat(ellipse(centre - 0.3 * size, y - 0.45 * size, size * 0.36), "#ffffff")
            self.flat(ellipse(centre + 0.35 * size, y + 0.4 * size, size * 0.16), "#ffffff", 0.8)

    def smile(self, x: float, y: float, width: float, colour: str = "#33262b") -> None:
        curve = [(x + width * t, y + width * 0.55 * (1 - t * t)) for t in np.linspace(-1, 1, 9)]
        self.flat(stroke(curve, 0.28 * width), colour)

    def cheeks(self, x: float, y: float, gap: float, size: float, colour: str) -> None:
        for side in (-1, 1):
            self.flat(ellipse(x + side * gap, y, size, size * 0.7), colour, 0.65, size * 0.25)

    def _shade_below(self, mask: Mask, strength: float) -> None:
        """The soft shadow of a new solid on those below."""
        moved = np.roll(mask.astype(np.float32), (18, 8), (0, 1))
        self.rgb = self.rgb * (1 - strength * blur(moved, 0.035)[..., None] * (0.9, 1.0, 0.85))
        self.rgb = self.rgb.astype(np.float32)

    def _lay(self, opacity: Array, colour: Array) -> None:
        total = opacity + self.alpha * (1 - opacity)
        share = (opacity / np.maximum(total, 1e-6))[..., None]
        self.rgb = self.rgb * (1 - share) + colour * share
        self.alpha = total


def _lit(paint: Array, normals: Array, gloss: float) -> Array:
    """Light the paint with a large soft lamp, reflected light from below and a highlight."""
    lamp = np.clip(normals @ LIGHT.astype(np.float32) * 0.5 + 0.5, 0, 1)
    bounce = np.clip(normals @ np.array([0.35, 0.75, 0.3], np.float32), 0, 1)[..., None]
    shine = np.clip(normals @ HALFWAY.astype(np.float32), 0, 1)
    shade = np.clip((lamp[..., None] - 0.25) / 0.6, 0, 1)
    dark = paint**1.35 * np.array([0.66, 0.56, 0.68], np.float32)  # shadows turn cool, not grey
    lit = dark * (1 - shade) + paint * shade
    lit = lit + (1 - lit) * (np.clip(lamp - 0.86, 0, 1) * 1.6)[..., None]
    lit = lit + paint * bounce * 0.22
    glint = gloss * (shine**60 * 0.75 + shine**14 * 0.28)
    return np.clip(lit + (1 - lit) * glint[..., None], 0, 1).astype(np.float32)


def finish(sticker: Sticker, ground: tuple[str, str, str] | None, base_y: float) -> Image.Image:
    """Average down; with `ground` (top, bottom, shadow colour) put the sticker on a background."""
    side = (SIDE_PX, SIDE_PX)
    premultiplied = sticker.rgb * sticker.alpha[..., None]
    colour = cv2.resize(premultiplied, side, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(sticker.alpha, side, interpolation=cv2.INTER_AREA)[..., None]
    if ground is None:
        pixels = np.concatenate([colour / np.maximum(alpha, 1e-6), alpha], -1)
        pixels[alpha[..., 0] < 1 / 255] = 0
        return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
    backdrop = _backdrop(ground, base_y)
    pixels = colour + backdrop * (1 - alpha)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))


def _backdrop(ground: tuple[str, str, str], base_y: float) -> Array:
    """A vertical blend, lighter in the middle, with a soft shadow on the ground at `base_y`."""
    everywhere = np.ones((SIDE_PX, SIDE_PX), bool)
    backdrop = fade(everywhere, ground[:2])
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIDE_PX)] * 2, indexing="ij")
    glow = np.exp(-(x**2 + (y + 0.15) ** 2) / 0.7)[..., None] * 0.35
    backdrop = backdrop + (1 - backdrop) * glow
    fall = np.exp(-((x / 0.5) ** 2 + ((y - base_y) / 0.09) ** 2))[..., None] * 0.22
    return (backdrop * (1 - fall) + rgb(ground[2]) * fall).astype(np.float32)


# The pictures


def ladybird() -> Image.Image:
    s = Sticker()
    for side in (-1, 1):  # feelers and feet
        s.solid(
            stroke([(side * 0.1, -0.36), (side * 0.16, -0.54), (side * 0.3, -0.62)], 0.045),
            "#3a3038",
        )
        s.solid(ellipse(side * 0.31, -0.62, 0.055), ("#5a4a54", "#2c242a"), roundness=0.06)
        for x, y in ((0.52, -0.02), (0.56, 0.22), (0.46, 0.46)):
            s.solid(
                ellipse(side * x, y, 0.1, 0.07, side * 25), ("#544650", "#2a2228"), roundness=0.07
            )
    s.solid(ellipse(0, -0.3, 0.33, 0.26), ("#5b4c57", "#2d252b"), roundness=0.24)
    body = inside(ellipse(0, 0.14, 0.55, 0.5))
    dots = [
        (-0.26, -0.06, 0.11),
        (0.27, -0.02, 0.115),
        (-0.33, 0.26, 0.1),
        (0.34, 0.28, 0.095),
        (-0.14, 0.42, 0.085),
        (0.15, 0.44, 0.085),
    ]
    painted = [(inside(ellipse(*dot)), "#33282f", 0.004) for dot in dots]
    seam = stroke([(0, -0.36), (0, 0.1), (0, 0.64)], 0.028)
    s.solid(
        body,
        ("#ff5a48", "#d81f36"),
        roundness=0.5,
        gloss=0.9,
        spots=[*painted, (seam, "#7d1020", 0.003)],
    )
    s.solid(ellipse(0, -0.24, 0.3, 0.22), ("#665661", "#3a3038"), roundness=0.2, gloss=0.5)
    for side in (-1, 1):
        s.solid(ellipse(side * 0.125, -0.26, 0.095, 0.105), "#fffaf2", roundness=0.09, shadow=0.1)
    s.eyes(0, -0.25, 0.12, 0.055)
    s.smile(0, -0.12, 0.055, "#fff2e8")
    return finish(s, ("#d9f3df", "#a9dfc3", "#4d9478"), 0.64)


def toadstool() -> Image.Image:
    s = Sticker()
    stem = rounded(
        mirrored([(0.0, -0.1), (0.2, -0.1), (0.21, 0.2), (0.3, 0.5), (0.22, 0.64), (0, 0.67)])
    )
    s.solid(stem, ("#fff6e6", "#f3d9b4"), roundness=0.24, gloss=0.2)
    s.solid(ellipse(0, 0.02, 0.46, 0.1), ("#f0cfa6", "#ffe9cb"), roundness=0.08, gloss=0.1)
    cap = inside(
        rounded(
            mirrored(
                [
                    (0.0, -0.68),
                    (0.32, -0.6),
                    (0.57, -0.33),
                    (0.63, -0.06),
                    (0.5, 0.06),
                    (0.22, 0.02),
                    (0, 0.0),
                ]
            )
        )
    )
    dots = [
        (-0.02, -0.42, 0.14, 0.12),
        (-0.34, -0.2, 0.1, 0.115),
        (0.33, -0.26, 0.115, 0.12),
        (0.05, -0.12, 0.085, 0.065),
        (-0.2, -0.58, 0.075, 0.05),
        (0.25, -0.55, 0.07, 0.05),
        (0.54, -0.06, 0.05, 0.075),
        (-0.54, -0.04, 0.05, 0.06),
    ]
    painted = [(inside(ellipse(*dot)), "#fff4e4", 0.004) for dot in dots]
    s.solid(cap, ("#ff6450", "#d9263a"), roundness=0.34, gloss=0.8, spots=painted)
    s.eyes(0, 0.26, 0.1, 0.05)
    s.smile(0, 0.35, 0.055)
    s.cheeks(0, 0.36, 0.17, 0.05, "#ff9c94")
    for x, lean in ((-0.34, -14), (-0.27, 12), (0.33, 16), (0.4, -8)):  # grass
        blade = rounded([(x - 0.035, 0.68), (x, 0.5), (x + 0.035, 0.68)], 0.4)
        s.solid(rotate(blade, lean, (x, 0.68)), ("#9fdc74", "#4fa64b"), roundness=0.04)
    return finish(s, ("#fdeacb", "#f7c9a8", "#b8795c"), 0.67)


def rocket() -> Image.Image:
    s = Sticker()
    tilt = 24

    def at(points: Points) -> Points:
        return rotate(points, tilt)

    flame = rounded(mirrored([(0.0, 0.36), (0.14, 0.4), (0.13, 0.56), (0.0, 0.8)]), 0.4)
    s.solid(at(flame), ("#ffb13d", "#ff6a2b"), roundness=0.14, gloss=0.1)
    core = rounded(mirrored([(0.0, 0.36), (0.08, 0.4), (0.07, 0.5), (0.0, 0.62)]), 0.4)
    s.solid(at(core), ("#fff3b0", "#ffd34f"), roundness=0.08, gloss=0.1, shadow=0)
    for side in (-1, 1):
        fin = rounded(
            [(side * 0.22, 0.08), (side * 0.42, 0.28), (side * 0.44, 0.54), (side * 0.17, 0.36)],
            0.35,
        )
        s.solid(at(fin), ("#ff7a6b", "#d8324a"), roundness=0.12)
    s.solid(at(box(0, 0.39, 0.15, 0.06, 0.05)), ("#7f8aa3", "#4d566e"), roundness=0.06)
    hull = rounded(
        mirrored(
            [(0.0, -0.8), (0.18, -0.54), (0.275, -0.2), (0.265, 0.12), (0.19, 0.36), (0, 0.39)]
        )
    )
    nose = inside(at(hull)) & inside(at(box(0, -0.75, 0.5, 0.25, 0.05)))
    band = inside(at(hull)) & inside(at(box(0, 0.245, 0.5, 0.035, 0.03)))
    s.solid(
        at(hull),
        ("#ffffff", "#dfe6f2"),
        roundness=0.27,
        gloss=0.6,
        spots=[(nose, "#f0475a", 0.003), (band, "#f0475a", 0.003)],
    )
    s.solid(at(ellipse(0, -0.17, 0.165)), ("#f7c04a", "#e08f2c"), roundness=0.06)
    glass = at(ellipse(0, -0.17, 0.12))
    s.solid(glass, ("#8fe0ff", "#2f86d6"), roundness=0.12, gloss=1.0, shadow=0.35)
    s.solid(
        at(
            rounded(
                [(-0.032, 0.16), (0, 0.08), (0.032, 0.16), (0.036, 0.44), (0, 0.5), (-0.036, 0.44)],
                0.35,
            )
        ),
        ("#ff7a6b", "#d8324a"),
        roundness=0.04,
    )
    return finish(s, None, 0)


def ghost() -> Image.Image:
    s = Sticker()
    hem = [(0.5, 0.62), (0.36, 0.52), (0.23, 0.64), (0.1, 0.54), (0.0, 0.6)]
    body = rounded(mirrored([(0.0, -0.66), (0.3, -0.58), (0.47, -0.3), (0.49, 0.1), *hem]))
    for side in (-1, 1):
        arm = stroke([(side * 0.4, 0.02), (side * 0.55, 0.0), (side * 0.64, -0.14)], 0.2, 0.15)
        s.solid(arm, ("#ffffff", "#e4dcfb"), roundness=0.1, gloss=0.2)
    s.solid(body, ("#ffffff", "#e6defc"), roundness=0.42, gloss=0.35)
    s.eyes(0, -0.2, 0.155, 0.078, "#3b2f4f")
    mouth = rounded(
        [(-0.09, -0.0), (0, -0.015), (0.09, -0.0), (0.06, 0.1), (0, 0.135), (-0.06, 0.1)], 0.4
    )
    s.flat(mouth, "#3b2f4f")
    s.flat(inside(mouth) & inside(ellipse(0, 0.12, 0.07, 0.055)), "#ff8fa5")
    s.cheeks(0, -0.02, 0.26, 0.075, "#ffb3c7")
    return finish(s, ("#c3b2f3", "#8d86e0", "#4f47a3"), 0.78)


def sun() -> Image.Image:
    s = Sticker()
    for index in range(12):
        long = index % 2 == 0
        tip = -0.72 if long else -0.63
        half = 0.105 if long else 0.085
        ray = rounded([(-half, -0.4), (0, tip), (half, -0.4), (0, -0.34)], 0.32)
        colours = ("#ffc533", "#ff9d2e") if long else ("#ffd95a", "#ffb53a")
        s.solid(rotate(ray, index * 30), colours, roundness=0.09, gloss=0.3, shadow=0.12)
    s.solid(ellipse(0, 0, 0.45), ("#ffe468", "#ffb326"), roundness=0.42, gloss=0.6, shadow=0.22)
    s.eyes(0, -0.06, 0.15, 0.062, "#5a3418")
    mouth = rounded(
        [(-0.13, 0.085), (0, 0.115), (0.13, 0.085), (0.08, 0.2), (0, 0.235), (-0.08, 0.2)], 0.4
    )
    s.flat(mouth, "#7a3319")
    s.flat(inside(mouth) & inside(ellipse(0, 0.235, 0.085, 0.06)), "#ff7d6b")
    s.cheeks(0, 0.09, 0.26, 0.07, "#ff8a5c")
    return finish(s, None, 0)


def cactus() -> Image.Image:
    s = Sticker()
    green = ("#8fdc8a", "#3f9f66")
    left = stroke([(-0.16, -0.02), (-0.4, -0.03), (-0.43, -0.12), (-0.43, -0.3)], 0.19)
    right = stroke([(0.16, 0.1), (0.38, 0.1), (0.42, 0.02), (0.42, -0.14)], 0.17)
    for arm in (left, right):
        s.solid(arm, green, roundness=0.1)
    trunk = box(0, -0.08, 0.245, 0.47, 0.24)
    ribs = [
        (stroke([(x, -0.4), (x * 1.25, 0.0), (x, 0.4)], 0.014), "#4fae70", 0.006)
        for x in (-0.13, 0.13)
    ]
    s.solid(trunk, green, roundness=0.24, gloss=0.45, spots=ribs)
    for x, y in (
        (-0.16, -0.38),
        (0.12, -0.42),
        (0.0, -0.3),
        (-0.19, 0.14),
        (0.19, 0.16),
        (-0.43, -0.24),
        (0.42, -0.08),
    ):
        for lean in (-28, 28):
            s.flat(rotate(ellipse(x, y, 0.006, 0.026), lean, (x, y + 0.02)), "#f4ffe6", 0.95)
    for turn in range(0, 360, 72):  # blossom
        petal = rotate(ellipse(0.05, -0.66, 0.062, 0.085), turn, (0.05, -0.58))
        s.solid(petal, ("#ff9ec4", "#f0629c"), roundness=0.06, shadow=0.12)
    s.solid(ellipse(0.05, -0.58, 0.045), ("#ffe27a", "#f5b83d"), roundness=0.045)
    s.eyes(0, -0.1, 0.105, 0.05)
    s.smile(0, 0.0, 0.05)
    s.cheeks(0, 0.01, 0.175, 0.05, "#f59a9a")
    pot = rounded([(-0.34, 0.36), (0.34, 0.36), (0.25, 0.7), (0, 0.73), (-0.25, 0.7)], 0.2)
    s.solid(pot, ("#f2936a", "#c55a3d"), roundness=0.22, gloss=0.35)
    s.solid(box(0, 0.36, 0.39, 0.075, 0.07), ("#ffac80", "#d86f4a"), roundness=0.07, gloss=0.4)
    return finish(s, ("#fbe3ec", "#f5c3d3", "#b06a82"), 0.72)


PICTURES = (ladybird, toadstool, rocket, ghost, sun, cactus)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for draw in PICTURES:
        image = draw()
        path = folder / f"{draw.__name__}.png"
        image.save(path, optimize=True)
        size = path.stat().st_size
        print(f"{path}  {image.mode}  {size / 1000:.0f} kB")
        assert size < MAX_BYTES, f"{path} is too large to ship"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
