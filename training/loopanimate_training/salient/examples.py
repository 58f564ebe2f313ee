"""Training pictures with their masks: objects composed over photographs, and labelled photographs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from loopanimate_core.picture.opening import open_picture

from ..data.photographs.split import is_held_out
from ..data.stickers.emoji import EmojiCache

PHOTO_PX = 288  # shorter side kept in memory
OBJECT_PX = 192  # longer side of a cut-out kept in memory
MIN_LABEL, MAX_LABEL = 0.01, 0.9  # share of the picture that a usable label covers
MAX_UNCERTAIN = 0.8  # mean of 4 p (1 - p) over mean of p

Pixels = NDArray[np.uint8]


@dataclass
class Material:
    """Pictures of one side of the split, as uint8: RGB backgrounds, RGBA objects, labelled RGB and score."""

    backgrounds: list[Pixels] = field(default_factory=list)
    stickers: list[Pixels] = field(default_factory=list)
    cutouts: list[Pixels] = field(default_factory=list)
    labelled: list[tuple[Pixels, Pixels]] = field(default_factory=list)


def load_material(
    photographs: Path, cutouts: Path, stickers: Path, labels: Path, *, held_out: bool
) -> Material:
    """Read one side of the split; photographs without a label are backgrounds only."""
    material = Material()
    for path in sorted(photographs.rglob("*.jpg")):
        if is_held_out(path.name) == held_out:
            picture = open_picture(path).convert("RGB")
            scale = PHOTO_PX / min(picture.size)
            size = (round(picture.width * scale), round(picture.height * scale))
            material.backgrounds.append(np.asarray(picture.resize(size)))
    for path in sorted(cutouts.rglob("*.png")):
        if is_held_out(path.name) == held_out:
            cutout = open_picture(path).convert("RGBA")
            cutout.thumbnail((OBJECT_PX, OBJECT_PX))
            material.cutouts.append(_trimmed(np.asarray(cutout)))
    cache = EmojiCache(stickers)
    for row in cache.select(held_out, movable=True):
        material.stickers.append(_trimmed(np.array(cache.sprites[row])))
    material.labelled = load_labels(labels, held_out=held_out)
    return material


def load_labels(labels: Path, *, held_out: bool) -> list[tuple[Pixels, Pixels]]:
    """Labelled photographs whose label is neither empty nor uncertain: RGB and score, at one size."""
    pairs = []
    for path in sorted(labels.rglob("*.png")):
        score = np.asarray(open_picture(path))
        if is_held_out(path.stem.rsplit("-", 1)[0]) == held_out and is_usable(score):
            pairs.append((np.asarray(open_picture(path.with_suffix(".jpg")).convert("RGB")), score))
    return pairs


def is_usable(score: Pixels) -> bool:
    """Whether a label shows an object clearly."""
    p = score / 255.0
    uncertain = float((4 * p * (1 - p)).mean()) / max(float(p.mean()), 1e-6)
    return MIN_LABEL <= float((p > 0.5).mean()) <= MAX_LABEL and uncertain <= MAX_UNCERTAIN


def _trimmed(rgba: Pixels) -> Pixels:
    """Without transparent margins."""
    rows, columns = (np.flatnonzero(rgba[..., 3].max(axis) > 8) for axis in (1, 0))
    if len(rows) == 0:
        return rgba
    return np.ascontiguousarray(rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


class Examples:
    """Random pictures `[H, W, 3]` in 0..1 with their masks `[H, W]`, decided by the generator alone."""

    def __init__(self, material: Material, size_px: int) -> None:
        self.material = material
        self.size_px = size_px

    def composite(self, random: np.random.Generator, objects: str) -> tuple[np.ndarray, np.ndarray]:
        """One or two objects over a photograph or a soft background, with a shadow at times."""
        picture = self._background(random)
        mask = np.zeros(picture.shape[:2], np.float32)
        count = 2 if random.random() < 0.12 else 1
        for _ in range(count):
            colour, alpha = self._placed(self._object(random, objects), random)
            if random.random() < 0.35:
                picture = _with_shadow(picture, alpha, random)
            picture = picture * (1 - alpha[..., None]) + colour  # colour is premultiplied
            mask = np.maximum(mask, alpha)
        return _finished(picture, mask, random)

    def labelled(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A crop of a labelled photograph that keeps most of its object."""
        picture, score = self.material.labelled[random.integers(len(self.material.labelled))]
        total = float(score.sum())
        for _ in range(8):
            window = _window(score.shape, random, 0.45, 1.0)
            if float(score[window].sum()) > 0.7 * total:
                break
        else:
            window = (slice(None), slice(None))
        side = (self.size_px, self.size_px)
        colour = cv2.resize(picture[window], side, interpolation=cv2.INTER_AREA) / 255.0
        mask = cv2.resize(score[window], side, interpolation=cv2.INTER_AREA) / 255.0
        if random.random() < 0.5:
            colour, mask = colour[:, ::-1], mask[:, ::-1]
        colour, mask = _rotated(colour, mask, random)
        return _finished(colour.astype(np.float32), mask.astype(np.float32), random)

    def _background(self, random: np.random.Generator) -> np.ndarray:
        side = (self.size_px, self.size_px)
        kind = random.random()
        if kind < 0.2:  # plain colour, gradient or soft noise
            cells = int(random.choice([1, 2, 4, 8, 16, 24]))
            noise = random.uniform(0, 1, 3) + random.uniform(-0.4, 0.4, (cells, cells, 3))
            soft = cv2.resize(noise.astype(np.float32), side, interpolation=cv2.INTER_CUBIC)
            return np.clip(soft, 0, 1).reshape(*side, 3)
        photo = self.material.backgrounds[random.integers(len(self.material.backgrounds))]
        crop = photo[_window(photo.shape[:2], random, 0.35, 1.0)]
        picture = cv2.resize(crop, side, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        if kind < 0.45:  # out of focus
            picture = cv2.GaussianBlur(picture, (0, 0), random.uniform(1.0, self.size_px / 24))
        return picture[:, ::-1] if random.random() < 0.5 else picture

    def _object(self, random: np.random.Generator, objects: str) -> np.ndarray:
        """RGBA in 0..1, straight alpha."""
        if objects == "labelled":
            picture, score = self.material.labelled[random.integers(len(self.material.labelled))]
            return _trimmed(np.dstack([picture, score])).astype(np.float32) / 255
        pool = self.material.stickers if objects == "stickers" else self.material.cutouts
        return pool[random.integers(len(pool))].astype(np.float32) / 255

    def _placed(
        self, rgba: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Premultiplied colour `[H, W, 3]` and alpha `[H, W]` of an object at a random place and size."""
        size = self.size_px
        height, width = rgba.shape[:2]
        scale = size * random.uniform(0.25, 0.95) / max(height, width)
        angle = random.normal(0, 12)
        flip = -1.0 if random.random() < 0.5 else 1.0
        stretch = random.uniform(0.85, 1.18)
        half_x, half_y = (scale * side / 2 for side in (width, height))
        centre = [_inside(size, half, random) for half in (half_x, half_y)]
        turn = cv2.getRotationMatrix2D((0, 0), angle, 1.0)[:, :2]
        linear = turn @ np.diag([flip * scale * stretch, scale])
        matrix = np.column_stack([linear, centre - linear @ [width / 2, height / 2]])
        straight = rgba[..., :3] * rgba[..., 3:]
        premultiplied = np.dstack([_recoloured(straight, random), rgba[..., 3]])
        if scale < 0.6:  # area filter first, so that warping does not alias
            smaller = (max(2, round(width * scale)), max(2, round(height * scale)))
            premultiplied = cv2.resize(premultiplied, smaller, interpolation=cv2.INTER_AREA)
            matrix = matrix @ np.diag([width / smaller[0], height / smaller[1], 1])
        warped = cv2.warpAffine(premultiplied, matrix, (size, size), flags=cv2.INTER_LINEAR)
        alpha = np.clip(warped[..., 3], 0, 1)
        return np.minimum(np.clip(warped[..., :3], 0, 1), alpha[..., None]), alpha


def _inside(size: int, half: float, random: np.random.Generator) -> float:
    """A centre such that at most a fifth of the object leaves the picture."""
    margin = max(0.0, 0.6 * half)
    low, high = min(margin, size / 2), max(size - margin, size / 2)
    return float(random.uniform(low, high))


def _window(
    shape: tuple[int, ...], random: np.random.Generator, low: float, high: float
) -> tuple[slice, slice]:
    """A random window of about `low` to `high` of each side; its aspect ratio varies a little."""
    share = random.uniform(low, high)
    window = []
    for side in shape[:2]:
        length = max(8, min(side, round(side * share * random.uniform(0.85, 1.18))))
        start = int(random.integers(side - length + 1))
        window.append(slice(start, start + length))
    return window[0], window[1]


def _rotated(
    picture: np.ndarray, mask: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    size = mask.shape[0]
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), random.normal(0, 5), 1.0)
    warp = {"M": turn, "dsize": (size, size), "borderMode": cv2.BORDER_REFLECT_101}
    return cv2.warpAffine(np.ascontiguousarray(picture), **warp), cv2.warpAffine(
        np.ascontiguousarray(mask), **warp
    )


def _recoloured(colour: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each channel times its own factor, and the channels swapped at times."""
    colour = colour * random.uniform(0.7, 1.25) * random.uniform(0.85, 1.15, 3)
    return colour[..., random.permutation(3)] if random.random() < 0.15 else colour


def _with_shadow(picture: np.ndarray, alpha: np.ndarray, random: np.random.Generator) -> np.ndarray:
    size = alpha.shape[0]
    to_right, down = random.normal(0, size / 30), random.uniform(0, size / 12)
    shift = np.array([[1, 0, to_right], [0, 1, down]], np.float32)
    shadow = cv2.warpAffine(alpha, shift, (size, size))
    shadow = cv2.GaussianBlur(shadow, (0, 0), random.uniform(1, size / 20))
    return picture * (1 - random.uniform(0.15, 0.6) * shadow[..., None])


def _finished(
    picture: np.ndarray, mask: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Exposure, contrast, tint, blur and noise of the whole picture."""
    picture = np.clip(picture, 0, 1) ** random.uniform(0.7, 1.4)
    picture = (picture - 0.5) * random.uniform(0.75, 1.2) + 0.5 + random.uniform(-0.08, 0.08)
    picture = picture * random.uniform(0.92, 1.08, 3)
    if random.random() < 0.08:
        picture = np.repeat(picture.mean(-1, keepdims=True), 3, -1)
    if random.random() < 0.25:
        picture = cv2.GaussianBlur(np.ascontiguousarray(picture), (0, 0), random.uniform(0.3, 1.2))
    if random.random() < 0.3:
        picture = picture + random.normal(0, random.uniform(0.005, 0.05), picture.shape)
    return np.clip(picture, 0, 1).astype(np.float32), np.clip(mask, 0, 1).astype(np.float32)
