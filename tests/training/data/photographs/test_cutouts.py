"""The cache of cut-outs: photographs taken apart, split by photograph."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.data.photographs.cutouts import (
    LEAST_CONTRAST,
    CutoutCache,
    prepare,
    take_apart,
)
from loopanimate_training.data.photographs.split import is_held_out

SHAPES_PX = ((32, 32), (24, 40))


def all_layers(cache: CutoutCache) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [cache.layer(cutout) for cutout in cache.cutouts]


def test_every_shape_has_cut_outs_of_its_size(cutout_cache: CutoutCache) -> None:
    for height_px, width_px in SHAPES_PX:
        cutouts = cutout_cache.select(False, height_px, width_px)
        assert len(cutouts) >= 8
        for cutout in cutouts:
            picture, alpha, background = cutout_cache.layer(cutout)
            assert picture.shape == background.shape == (height_px, width_px, 3)
            assert alpha.shape == (height_px, width_px)
            assert picture.dtype == alpha.dtype == background.dtype == np.uint8
    assert cutout_cache.select(False, 40, 24) == []


def test_rows_count_the_cut_outs_of_a_shape(cutout_cache: CutoutCache) -> None:
    for height_px, width_px in SHAPES_PX:
        rows = [c.row for c in cutout_cache.cutouts if c.height_px == height_px]
        assert rows == list(range(len(rows)))
        stored = np.load(cutout_cache.folder / f"alphas_{width_px}x{height_px}.npy", mmap_mode="r")
        assert len(stored) == len(rows)


def test_a_photograph_is_on_one_side_with_all_of_its_cut_outs(cutout_cache: CutoutCache) -> None:
    sides = [
        {c.photograph for shape in SHAPES_PX for c in cutout_cache.select(held_out, *shape)}
        for held_out in (False, True)
    ]
    assert sides[0] and sides[1]
    assert not sides[0] & sides[1]
    assert all(is_held_out(name) for name in sides[1])


def test_masks_are_soft_at_their_rim_and_of_a_fair_size(cutout_cache: CutoutCache) -> None:
    soft = 0
    for _, alpha, _ in all_layers(cutout_cache):
        assert 0.03 < alpha.mean() / 255.0 < 0.45
        assert alpha.max() == 255 and alpha.min() == 0
        assert ((alpha > 0) & (alpha < 255)).mean() < 0.3  # only the rim
        soft += bool(((alpha > 20) & (alpha < 235)).any())
    assert soft > 0.9 * len(cutout_cache.cutouts)


def test_outside_the_object_the_background_is_the_photograph(cutout_cache: CutoutCache) -> None:
    for picture, alpha, background in all_layers(cutout_cache):
        near = cv2.dilate((alpha > 0).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        assert (~near).any()
        assert np.abs(picture.astype(int) - background)[~near].max() <= 1


def test_the_object_differs_from_what_is_filled_in_behind_it(cutout_cache: CutoutCache) -> None:
    for picture, alpha, background in all_layers(cutout_cache):
        opaque = alpha == 255
        difference = (picture.astype(float) - background)[opaque] / 255.0
        assert np.sqrt((difference**2).mean()) > 0.8 * LEAST_CONTRAST


def test_the_object_s_colours_are_not_left_in_the_background() -> None:
    picture = np.full((64, 64, 3), (40, 90, 40), np.uint8)
    cv2.circle(picture, (32, 36), 14, (230, 40, 40), -1, cv2.LINE_AA)
    mask = picture[..., 0] > 130
    small, alpha, background = take_apart(picture, mask, 32, 32)
    assert np.abs(background.astype(int) - (40, 90, 40)).max() <= 2
    layer = alpha[..., None] / 255.0
    again = layer * small + (1.0 - layer) * background
    assert np.abs(again - small)[alpha == 255].max() < 1.0
    # in the rim the picture is object and background already, so they are mixed twice there
    assert np.abs(again - small).max() < 0.3 * 190


def test_preparing_twice_gives_the_same_cut_outs(
    photographs: Path, cutout_cache: CutoutCache, tmp_path: Path
) -> None:
    again = prepare(photographs, tmp_path, SHAPES_PX[:1], crops=2, regions=1)
    assert again.cutouts == [c for c in cutout_cache.cutouts if c.width_px == 32]
    for cutout in again.cutouts[:6]:
        for one, other in zip(again.layer(cutout), cutout_cache.layer(cutout), strict=True):
            assert np.abs(one.astype(int) - other).mean() < 1.0
    assert again.content != cutout_cache.content
    assert CutoutCache(tmp_path).content == again.content


def test_a_folder_without_cut_outs_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoopAnimateError, match=r"cutouts\.json"):
        CutoutCache(tmp_path)


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(LoopAnimateError, match="holds no pictures"):
        prepare(tmp_path, tmp_path / "cache")


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(LoopAnimateError, match=r"torn\.jpg cannot be read"):
        prepare(tmp_path, tmp_path / "cache", SHAPES_PX[:1])


def test_pictures_in_which_nothing_stands_out_are_an_error(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((60, 60, 3), 128, np.uint8))
    with pytest.raises(LoopAnimateError, match="nothing to cut out"):
        prepare(tmp_path, tmp_path / "cache", SHAPES_PX[:1], crops=2)
    assert not (tmp_path / "cache" / "cutouts.json").exists()
