"""Sheets of frames: for people, and for a page that plays them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.sheet import contact_sheet, draw_sheet, plan_sheet, shrink_frames


def ramp(frames: int = 3, height: int = 40, width: int = 60, channels: int = 3) -> torch.Tensor:
    return torch.linspace(0, 1, frames * height * width * channels).reshape(
        frames, height, width, channels
    )


@given(frames=st.integers(1, 2000), height=st.integers(1, 3000), width=st.integers(1, 3000))
def test_a_sheet_is_small_enough_and_holds_every_frame(
    frames: int, height: int, width: int
) -> None:
    layout = plan_sheet(frames, height, width)
    assert layout.rows * layout.columns >= frames > (layout.rows - 1) * layout.columns
    assert max(layout.columns * layout.width_px, layout.rows * layout.height_px) <= 4096
    assert 1 <= max(layout.width_px, layout.height_px) <= 320
    assert layout.width_px <= width and layout.height_px <= height


def test_frames_lie_where_the_layout_says() -> None:
    frames = ramp(7, 4, 6)
    layout = plan_sheet(7, 4, 6)
    sheet = draw_sheet(frames, layout)
    for index, frame in enumerate(frames):
        top, left = layout.corner(index)
        assert sheet[top : top + 4, left : left + 6].equal(frame)


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(LoopAnimateError, match="got 0 of"):
        plan_sheet(0, 8, 8)
    with pytest.raises(LoopAnimateError, match="do not fit"):
        plan_sheet(100, 8, 8, sheet_px=5)


def test_shrinking_keeps_the_shape_and_never_enlarges() -> None:
    assert shrink_frames(ramp(2, 40, 60, 4), 30).shape == (2, 20, 30, 4)
    assert shrink_frames(ramp(), 300).equal(ramp())


def test_contact_sheet_places_frames_row_by_row():
    frames = torch.arange(5).float().div(10)[:, None, None, None].expand(-1, 8, 10, 3)
    sheet = contact_sheet(frames, columns=3, gap_px=2)
    assert sheet.shape == (2 * 10 + 2, 3 * 12 + 2, 3)
    assert sheet[2, 2, 0] == 0
    assert torch.isclose(sheet[12, 14, 0], torch.tensor(0.4))
    assert sheet[12, 26, 0] == 1, "the empty cell is white"
    assert contact_sheet(frames).ndim == 3
