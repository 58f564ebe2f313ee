"""Regions of photographs that could move as one object."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from loopanimate_training.data.photographs.regions import (
    LARGEST_SHARE,
    REGIONS,
    SMALLEST_SHARE,
    Region,
    draw_region,
    grabcut,
    superpixels,
    usable,
)

SHAPES_PX = [(64, 64), (48, 80), (80, 48)]
KINDS = [region for region, _ in REGIONS]


def picture_with_disc(height_px: int, width_px: int) -> tuple[np.ndarray, np.ndarray]:
    """A red disc in the middle of soft green noise, and its mask."""
    rng = np.random.default_rng(2)
    picture = np.full((height_px, width_px, 3), (60, 120, 60), np.float32)
    picture += cv2.GaussianBlur(rng.normal(0, 20, picture.shape).astype(np.float32), (5, 5), 0)
    disc = np.zeros((height_px, width_px), np.uint8)
    cv2.circle(disc, (width_px // 2, height_px // 2), int(0.24 * min(height_px, width_px)), 1, -1)
    picture[disc > 0] = (200, 50, 50)
    return picture.clip(0, 255).astype(np.uint8), disc > 0


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("size", SHAPES_PX, ids=str)
@pytest.mark.parametrize("region", KINDS)
def test_every_kind_finds_different_usable_regions(region: Region, size: tuple[int, int]) -> None:
    picture, _ = picture_with_disc(*size)
    rng = np.random.default_rng(0)
    masks = [region(picture, rng) for _ in range(8)]
    assert all(mask.shape == size and mask.dtype == bool for mask in masks)
    found = [mask for mask in map(usable, masks) if mask is not None]
    assert len(found) >= 2
    assert any(overlap(found[0], other) < 0.9 for other in found[1:]) or region is grabcut


@pytest.mark.parametrize("region", KINDS)
def test_a_picture_of_one_colour_is_no_error(region: Region) -> None:
    picture = np.full((48, 64, 3), 90, np.uint8)
    rng = np.random.default_rng(1)
    for _ in range(3):
        assert region(picture, rng).shape == (48, 64)


@pytest.mark.parametrize("region", [grabcut, superpixels])
def test_regions_that_look_at_the_picture_follow_its_edges(region: Region) -> None:
    picture, disc = picture_with_disc(96, 96)
    rng = np.random.default_rng(0)
    best = max(overlap(region(picture, rng), disc) for _ in range(12))
    assert best > 0.85


def test_drawn_regions_are_usable_as_they_are() -> None:
    picture, _ = picture_with_disc(64, 80)
    rng = np.random.default_rng(5)
    found = [mask for _ in range(12) if (mask := draw_region(picture, rng)) is not None]
    assert len(found) >= 8
    for mask in found:
        assert SMALLEST_SHARE <= mask.mean() <= LARGEST_SHARE
        parts, _ = cv2.connectedComponents(mask.astype(np.uint8))
        around = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
        holes, _ = cv2.connectedComponents(around)
        assert (parts, holes) == (2, 2)  # the zeros count as one


def test_a_region_is_a_function_of_picture_and_seed() -> None:
    picture, _ = picture_with_disc(64, 64)
    one, other = (draw_region(picture, np.random.default_rng(9)) for _ in range(2))
    assert one is not None and other is not None
    assert overlap(one, other) > 0.98


def mask_of(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (60, 60)) -> np.ndarray:
    """A mask with boxes of ones (top, left, height, width)."""
    mask = np.zeros(size, bool)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = True
    return mask


def test_of_many_parts_the_largest_is_kept_and_its_holes_are_filled() -> None:
    mask = mask_of((10, 10, 30, 30), (50, 50, 8, 8))
    mask[20:28, 20:28] = False
    kept = usable(mask)
    assert kept is not None
    assert kept[24, 24] and not kept[54, 54]
    assert kept.sum() == pytest.approx(900, rel=0.05)


@pytest.mark.parametrize(
    ("mask", "what"),
    [
        (mask_of(), "nothing"),
        (mask_of((20, 20, 6, 6)), "too small"),
        (mask_of((2, 2, 50, 50)), "too large"),
        (mask_of((20, 0, 15, 60)), "from edge to edge"),
        (np.eye(60, dtype=bool) | np.eye(60, k=1, dtype=bool), "a thin line"),
        (mask_of((5, 5, 45, 6), (44, 5, 6, 45)), "an L that hardly fills its box"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_regions_that_could_not_move_are_refused(mask: np.ndarray, what: str) -> None:
    assert usable(mask) is None, what
