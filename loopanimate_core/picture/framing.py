"""Which part of a picture a loop shows: a crop that keeps the object whole, or the whole picture with a border."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import LoopAnimateError

FITS = ("crop", "pad")
POSITIONS = ("object", "centre", "top", "bottom", "left", "right")
MARGIN = 0.04
"""Space kept around the object, as a share of the crop."""


@dataclass(frozen=True)
class Frame:
    """A part of a picture in pixels; it reaches over the edges where a border is added.

    Attributes:
        centred: it is the middle of the picture.
        cuts_object: the object is larger than the crop.
    """

    top: int
    left: int
    height: int
    width: int
    centred: bool = True
    cuts_object: bool = False


def choose_frame(
    height: int,
    width: int,
    ratio: float,
    fit: str = "crop",
    position: str = "object",
    mask: Tensor | None = None,
) -> Frame:
    """The part of a picture of `height` x `width` pixels that has the aspect ratio `ratio` = width / height.

    Args:
        fit: "crop": as much as possible of the picture, without a border. "pad": all of it, with a border.
        position: what a crop keeps: "object" the middle, moved just so far that the object of the mask is whole;
            "centre" the middle; else that edge.
        mask: `[height, width]`, above 0.5 = object.

    Raises:
        LoopAnimateError: an unknown fit or position.
    """
    if fit not in FITS or position not in POSITIONS:
        what, legal = (fit, FITS) if fit not in FITS else (position, POSITIONS)
        raise LoopAnimateError(f"fit and position must be one of {', '.join(legal)}, got {what!r}")
    wide = width / height > ratio
    if fit == "pad":
        size = (round(width / ratio), width) if wide else (height, round(height * ratio))
        return Frame((height - size[0]) // 2, (width - size[1]) // 2, *size)
    size = (
        (height, max(1, round(height * ratio))) if wide else (max(1, round(width / ratio)), width)
    )
    middle = (height - size[0]) // 2, (width - size[1]) // 2
    axis = 1 if wide else 0  # along which the crop can move
    first, last = ("top", "left")[axis], ("bottom", "right")[axis]
    free = (height, width)[axis] - size[axis]
    start, cuts = {first: 0, last: free}.get(position, middle[axis]), False
    if position == "object" and mask is not None:
        start, cuts = _around_object(mask, axis, size[axis], middle[axis], free)
    top, left = (middle[0], start) if wide else (start, middle[1])
    return Frame(top, left, *size, centred=start == middle[axis], cuts_object=cuts)


def take_frame(pixels: Tensor, frame: Frame, border: Tensor | float = 0.0) -> Tensor:
    """The part of `pixels [H, W, C]` or `[H, W]`; outside of the picture is `border`, a number or a colour `[C]`."""
    height, width = pixels.shape[:2]
    bottom, right = frame.top + frame.height, frame.left + frame.width
    inside = pixels[max(frame.top, 0) : min(bottom, height), max(frame.left, 0) : min(right, width)]
    if inside.shape[:2] == (frame.height, frame.width):
        return inside
    filled = pixels.new_empty(frame.height, frame.width, *pixels.shape[2:])
    filled[:] = torch.as_tensor(border, dtype=pixels.dtype, device=pixels.device)
    top, left = max(-frame.top, 0), max(-frame.left, 0)
    filled[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return filled


def border_colour(picture: Tensor) -> Tensor:
    """The mean colour `[C]` of the outermost pixels of `picture [H, W, C]`."""
    edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    return torch.cat(edges).mean(0)


def _around_object(mask: Tensor, axis: int, size: int, middle: int, free: int) -> tuple[int, bool]:
    """Where the crop starts along `axis`, and whether the object is larger than it."""
    covered = (mask > 0.5).any(dim=1 - axis).nonzero().flatten()
    if not len(covered):
        return middle, False
    first, last = int(covered[0]), int(covered[-1]) + 1
    if last - first > size:
        return min(max((first + last - size) // 2, 0), free), True
    margin = min(round(MARGIN * size), (size - (last - first)) // 2)
    start = min(max(middle, last + margin - size), first - margin)
    return min(max(start, 0), free), False
