"""Regions of a photograph that could move as one object.

Each function is given a picture [H, W, 3] uint8 and returns a mask [H, W] bool, which may be unusable:
`usable` decides. Some follow the picture's own edges, others do not, so that a model learns to move what its mask
shows and not what it would choose itself.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

SMALLEST_SHARE, LARGEST_SHARE = 0.05, 0.4  # of the picture
_GRABCUT_PX = 96  # shorter side at which GrabCut runs
_SUPERPIXELS = (40, 140)

Region = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def ellipse(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An ellipse of any place, size and angle."""
    height, width = picture.shape[:2]
    centre = (int(rng.uniform(0.25, 0.75) * width), int(rng.uniform(0.3, 0.75) * height))
    half = tuple(int(rng.uniform(0.14, 0.36) * min(height, width)) for _ in range(2))
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, centre, half, float(rng.uniform(0, 180)), 0.0, 360.0, 1, -1)
    return mask > 0


def blob(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An irregular smooth shape: a level set of noise, higher in the middle."""
    height, width = picture.shape[:2]
    cells = int(rng.integers(3, 7))
    noise = cv2.resize(
        rng.normal(size=(cells, cells)).astype(np.float32),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    field = noise - 2.5 * ((x - rng.uniform(-0.4, 0.4)) ** 2 + (y - rng.uniform(-0.3, 0.4)) ** 2)
    return field > np.quantile(field, 1.0 - rng.uniform(0.1, 0.35))


def superpixels(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Neighbouring superpixels of the most similar colours, grown from one near the middle."""
    labels = _watershed(picture, int(rng.integers(*_SUPERPIXELS)), rng)
    colours, areas, borders = _statistics(picture, labels)
    height, width = labels.shape
    seed = labels[int(rng.uniform(0.3, 0.7) * height), int(rng.uniform(0.3, 0.7) * width)]
    members, wanted = {int(seed)}, rng.uniform(0.08, 0.3) * labels.size
    while sum(areas[member] for member in members) < wanted:
        inside = np.average(
            colours[list(members)], axis=0, weights=[areas[member] for member in members]
        )
        around = {other for member in members for other in borders[member]} - members
        if not around:
            break
        members.add(min(around, key=lambda other: float(np.abs(colours[other] - inside).sum())))
    return np.isin(labels, list(members))


def grabcut(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What GrabCut finds in a rectangle of random place and size."""
    height, width = picture.shape[:2]
    scale = _GRABCUT_PX / min(height, width)
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    rows, columns = small.shape[:2]
    tall, wide = (int(rng.uniform(0.35, 0.75) * side) for side in (rows, columns))
    top, left = int(rng.integers(1, rows - tall)), int(rng.integers(1, columns - wide))
    labels, models = np.zeros((rows, columns), np.uint8), (np.zeros((1, 65)), np.zeros((1, 65)))
    cv2.setRNGSeed(int(rng.integers(1 << 30)))
    cv2.grabCut(small, labels, (left, top, wide, tall), *models, 3, cv2.GC_INIT_WITH_RECT)
    found = (labels % 2).astype(np.float32)
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


REGIONS: tuple[tuple[Region, float], ...] = (
    (ellipse, 0.12),
    (blob, 0.13),
    (superpixels, 0.35),
    (grabcut, 0.4),
)
"""The functions, and the share of the cut-outs that each makes."""


def draw_region(
    picture: np.ndarray, rng: np.random.Generator, attempts: int = 4
) -> np.ndarray | None:
    """A usable region of one kind; None if that kind finds none in a few attempts."""
    kinds, shares = zip(*REGIONS, strict=True)
    region = kinds[rng.choice(len(kinds), p=shares)]
    for _ in range(attempts):
        mask = usable(region(picture, rng))
        if mask is not None:
            return mask
    return None


def usable(mask: np.ndarray) -> np.ndarray | None:
    """The largest connected part without holes and thin parts; None if it is too small, large or long."""
    height, width = mask.shape
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return None
    outline = max(outlines, key=cv2.contourArea)
    filled = np.zeros_like(opened)
    cv2.drawContours(filled, [outline], -1, 1, -1)
    _, _, wide, tall = cv2.boundingRect(outline)
    share = filled.mean()
    fills_its_box = filled.sum() / (wide * tall) > 0.35
    fits = wide < 0.92 * width and tall < 0.92 * height
    return (
        filled > 0 if SMALLEST_SHARE <= share <= LARGEST_SHARE and fills_its_box and fits else None
    )


def _watershed(picture: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Labels [H, W] from 0 on: about `count` patches that follow the picture's edges."""
    height, width = picture.shape[:2]
    step = max(4, int((height * width / count) ** 0.5))
    markers = np.zeros((height, width), np.int32)
    rows, columns = np.arange(step // 2, height, step), np.arange(step // 2, width, step)
    for number, (row, column) in enumerate(((r, c) for r in rows for c in columns), 1):
        jitter = rng.integers(-step // 3, step // 3 + 1, 2)
        y, x = np.clip((row + jitter[0], column + jitter[1]), 0, (height - 1, width - 1))
        markers[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = number
    labels = cv2.watershed(cv2.GaussianBlur(picture, (3, 3), 0), markers)
    grown = cv2.dilate(np.maximum(labels, 0).astype(np.float32), np.ones((5, 5), np.uint8))
    return np.where(labels > 0, labels, grown).astype(np.int32)  # lines between patches were -1


def _statistics(
    picture: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[set[int]]]:
    """Mean colour [n, 3] and area [n] of every patch, and its neighbours."""
    count, flat = int(labels.max()) + 1, labels.ravel()
    areas = np.bincount(flat, minlength=count).astype(np.float64)
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64)
    sums = np.stack([np.bincount(flat, lab[:, c], minlength=count) for c in range(3)], -1)
    neighbours: list[set[int]] = [set() for _ in range(count)]
    for first, second in (
        (labels[:, :-1], labels[:, 1:]),
        (labels[:-1], labels[1:]),
    ):
        touching = first != second
        for a, b in set(zip(first[touching].tolist(), second[touching].tolist(), strict=True)):
            neighbours[a].add(b)
            neighbours[b].add(a)
    return sums / np.maximum(areas, 1.0)[:, None], areas, neighbours
