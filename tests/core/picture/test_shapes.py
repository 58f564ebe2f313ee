"""The shape nearest to a picture, and the rules for a model's shapes."""

from __future__ import annotations

import pytest

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.shapes import Shape, check_shapes, nearest_shape

SQUARE, WIDE, HIGH = Shape(96, 96), Shape(128, 72), Shape(72, 128)
SHAPES = (SQUARE, WIDE, HIGH)


@pytest.mark.parametrize(
    ("width_px", "height_px", "shape"),
    [
        (96, 96, SQUARE),
        (512, 512, SQUARE),
        (1920, 1080, WIDE),
        (1920, 1200, WIDE),  # 16:10
        (6000, 4000, WIDE),  # 3:2
        (1280, 1024, SQUARE),  # 5:4
        (1080, 2340, HIGH),
        (5000, 700, WIDE),
    ],
)
def test_nearest_shape(width_px: int, height_px: int, shape: Shape) -> None:
    assert nearest_shape(SHAPES, height_px, width_px) == shape


def test_nearest_shape_depends_on_the_aspect_ratio_alone() -> None:
    for width_px in range(100, 3000, 77):
        found = nearest_shape(SHAPES, 1000, width_px)
        assert nearest_shape(SHAPES, 2000, 2 * width_px) == found
        turned = nearest_shape([Shape(h, w) for w, h in SHAPES], width_px, 1000)
        assert turned == Shape(found.height_px, found.width_px)
    assert all(nearest_shape(SHAPES, s.height_px, s.width_px) == s for s in SHAPES)


def test_of_equally_near_shapes_the_first_is_taken() -> None:
    assert nearest_shape([WIDE, HIGH], 100, 100) == WIDE
    assert nearest_shape([HIGH, WIDE], 100, 100) == HIGH
    for width_px, height_px in ((4032, 3024), (1024, 768), (4, 3)):  # (4/3)² = 16/9
        assert nearest_shape([SQUARE, WIDE], height_px, width_px) == SQUARE
        assert nearest_shape([WIDE, SQUARE], height_px, width_px) == WIDE


def test_shapes_are_checked() -> None:
    assert check_shapes([], SQUARE) == ()
    assert check_shapes([[96, 96], [128, 72], [72, 128]], WIDE) == SHAPES


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([[96, 96], [128, 70]], "multiples of 8 pixels, got 128 x 70"),
        ([[96, 96], [-8, 8]], "multiples of 8"),
        ([[96, 96], [96, 96]], "96 x 96 is listed twice"),
        ([[96, 96], [192, 96]], "192 x 96 is 2.00 times as large as 96 x 96"),
        ([[128, 72], [72, 128]], "which is 96 x 96, got 128 x 72, 72 x 128"),
    ],
)
def test_unusable_shapes(shapes: list[list[int]], message: str) -> None:
    with pytest.raises(LoopAnimateError, match=message):
        check_shapes(shapes, SQUARE)
