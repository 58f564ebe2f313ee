"""The picture shapes that a model is trained for, and which of them suits a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import LoopAnimateError
from . import SIZE_MULTIPLE_PX

MAX_AREA_RATIO = 1.1
"""Largest area of a model's shapes over the smallest: a batch of each needs about the same memory and time."""


class Shape(NamedTuple):
    """The size of a picture; written width first, as people write it."""

    width_px: int
    height_px: int

    def __str__(self) -> str:
        return f"{self.width_px} x {self.height_px}"


def nearest_shape(shapes: Iterable[Shape], height_px: int, width_px: int) -> Shape:
    """The shape whose aspect ratio is nearest to that of a picture; of equally near ones the first.

    Distances are |log(w/h) - log(W/H)|, so 2:1 is as far from a square as 1:2, and 4:3 is as far from a square
    as from 16:9.
    """

    def distance(shape: Shape) -> float:
        ratio = shape.width_px * height_px / (shape.height_px * width_px)
        return round(abs(math.log(ratio)), 6)  # so that rounding does not decide a tie

    return min(shapes, key=distance)


def check_shapes(shapes: Iterable[Iterable[int]], default: Shape) -> tuple[Shape, ...]:
    """The shapes of a model, checked; `default` is the one for no particular picture.

    Raises:
        LoopAnimateError: a side that is not a positive multiple of 8, a shape listed twice, areas that differ by
            more than 10 %, or shapes without the default one.
    """
    checked = tuple(Shape(*map(int, shape)) for shape in shapes)
    for shape in checked:
        if min(shape) <= 0 or any(side_px % SIZE_MULTIPLE_PX for side_px in shape):
            raise LoopAnimateError(
                f"shapes: the sides must be multiples of {SIZE_MULTIPLE_PX} pixels, got {shape}"
            )
        if checked.count(shape) > 1:
            raise LoopAnimateError(f"shapes: {shape} is listed twice")
    if not checked:
        return checked
    small, large = (find(checked, key=math.prod) for find in (min, max))
    if math.prod(large) > MAX_AREA_RATIO * math.prod(small):
        raise LoopAnimateError(
            f"shapes: the areas may differ by {MAX_AREA_RATIO - 1:.0%}, but {large} is"
            f" {math.prod(large) / math.prod(small):.2f} times as large as {small}"
        )
    if default not in checked:
        listed = ", ".join(map(str, checked))
        raise LoopAnimateError(
            f"shapes must include width_px x height_px, which is {default}, got {listed}"
        )
    return checked
