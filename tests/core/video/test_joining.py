"""Closing, opening and chaining loops."""

from __future__ import annotations

import pytest
import torch

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.video.joining import chain_loops, close_loop, open_loop


def ramp(frames: int = 3, height: int = 40, width: int = 60, channels: int = 3) -> torch.Tensor:
    return torch.linspace(0, 1, frames * height * width * channels).reshape(
        frames, height, width, channels
    )


def test_closing_and_opening_undo_each_other() -> None:
    frames = ramp()
    closed = close_loop(frames)
    assert len(closed) == 4 and closed[-1].equal(frames[0])
    assert open_loop(closed).equal(frames)
    with pytest.raises(LoopAnimateError, match="1 frame"):
        open_loop(frames[:1])


def test_a_chain_holds_its_loops_in_order() -> None:
    first, second = ramp(2), ramp(3).flip(0)
    assert chain_loops([first, second]).equal(torch.cat([first, second]))
    with pytest.raises(LoopAnimateError, match="loop 2 is 50 x 40 pixels and loop 1 60 x 40"):
        chain_loops([first, second[:, :, :50]])
