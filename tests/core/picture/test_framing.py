"""Which part of a picture a loop shows."""

from __future__ import annotations

import pytest
import torch

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.framing import (
    POSITIONS,
    Frame,
    border_colour,
    choose_frame,
    take_frame,
)

SIZES = [(100, 160, 1.0), (160, 100, 1.0), (90, 160, 9 / 16), (160, 90, 16 / 9), (64, 64, 1.0)]


def masked(height: int, width: int, top: int, left: int, side: int = 20) -> torch.Tensor:
    mask = torch.zeros(height, width)
    mask[top : top + side, left : left + side] = 1
    return mask


def covers(frame: Frame, top: int, left: int, side: int = 20) -> bool:
    return (
        frame.top <= top
        and frame.left <= left
        and frame.top + frame.height >= top + side
        and frame.left + frame.width >= left + side
    )


@pytest.mark.parametrize(("height", "width", "ratio"), SIZES)
@pytest.mark.parametrize("position", POSITIONS)
def test_a_crop_is_as_large_as_it_can_be(
    height: int, width: int, ratio: float, position: str
) -> None:
    frame = choose_frame(height, width, ratio, position=position)
    assert 0 <= frame.top <= height - frame.height and 0 <= frame.left <= width - frame.width
    assert frame.height == height or frame.width == width
    assert frame.width / frame.height == pytest.approx(ratio, abs=0.02)
    assert take_frame(torch.zeros(height, width, 3), frame).shape == (frame.height, frame.width, 3)


@pytest.mark.parametrize("corner", [(0, 0), (0, 140), (80, 0), (80, 140), (40, 70), (10, 100)])
def test_the_object_stays_whole(corner: tuple[int, int]) -> None:
    mask = masked(100, 160, *corner)
    frame = choose_frame(100, 160, 0.5, mask=mask)
    assert covers(frame, *corner) and not frame.cuts_object
    assert take_frame(mask, frame).sum() == mask.sum()


def test_an_object_in_the_middle_does_not_move_the_crop() -> None:
    frame = choose_frame(100, 160, 1.0, mask=masked(100, 160, 40, 70))
    assert frame == choose_frame(100, 160, 1.0, position="centre") and frame.centred


def test_the_crop_moves_no_further_than_it_must() -> None:
    frame = choose_frame(100, 160, 1.0, mask=masked(100, 160, 40, 120))
    assert 40 <= frame.left < 60 and not frame.centred


def test_an_object_larger_than_the_crop_is_reported() -> None:
    frame = choose_frame(100, 160, 0.5, mask=masked(100, 160, 0, 30, side=100))
    assert frame.cuts_object and frame.left == pytest.approx(55, abs=1)


def test_edges() -> None:
    assert choose_frame(100, 160, 1.0, position="left").left == 0
    assert choose_frame(100, 160, 1.0, position="right").left == 60
    assert choose_frame(160, 100, 1.0, position="top").top == 0
    assert choose_frame(160, 100, 1.0, position="bottom").top == 60


@pytest.mark.parametrize(("height", "width", "ratio"), SIZES)
def test_padding_shows_everything(height: int, width: int, ratio: float) -> None:
    picture = torch.rand(height, width, 3)
    frame = choose_frame(height, width, ratio, fit="pad")
    padded = take_frame(picture, frame, border_colour(picture))
    assert padded.shape == (frame.height, frame.width, 3)
    top, left = -frame.top, -frame.left
    assert torch.equal(padded[top : top + height, left : left + width], picture)
    if frame.width > width:
        assert torch.allclose(padded[0, 0], border_colour(picture))


@pytest.mark.parametrize(("fit", "position"), [("squash", "object"), ("crop", "somewhere")])
def test_unknown_choices_raise_one_sentence(fit: str, position: str) -> None:
    with pytest.raises(LoopAnimateError, match="must be one of"):
        choose_frame(10, 20, 1.0, fit, position)
