"""Closing: which frames the network sees at a step."""

import pytest
import torch

from loopanimate_core import LoopAnimateError
from loopanimate_core.closing import CLOSINGS, Closing, bit_reversed


@pytest.mark.parametrize("name", CLOSINGS)
@pytest.mark.parametrize("frames", [3, 15, 34, 35])
def test_every_frame_is_seen_at_every_step(name: str, frames: int) -> None:
    closing = Closing(name, frames, 35)
    for step in range(10):
        seen = torch.cat([window.indices for window in closing.windows(step, 10)])
        assert set(seen.tolist()) == set(range(closing.sampled_frames))


def test_tie_shows_the_first_frame_again_at_the_end() -> None:
    (window,) = Closing("tie", 35, 35).windows(3, 10)
    assert window.indices.tolist() == [*range(34), 0]


def test_shift_turns_the_ring_then_rests() -> None:
    closing = Closing("shift", 15, 35)
    starts = [closing.windows(step, 10)[0].indices[0].item() for step in range(10)]
    assert len(set(starts[:6])) == 6
    assert starts[6:] == [0] * 4
    for step in range(6):
        (window,) = closing.windows(step, 10)
        assert window.indices[0] == window.indices[-1]
        assert ((window.indices[1:] - window.indices[:-1]) % 14 == 1).all()


def test_windows_have_constant_length_and_count_at_any_loop_length() -> None:
    for frames in (36, 100, 1000):
        closing = Closing("windows", frames, 35)
        counts = set()
        for step in range(12):
            windows = closing.windows(step, 12)
            counts.add(len(windows))
            assert {len(window.indices) for window in windows} == {35}
            covered = torch.zeros(frames - 1)
            for window in windows:
                covered.index_add_(0, window.indices, window.weights)
            assert covered.min() > 0
        assert len(counts) == 1


def test_windows_move_between_steps() -> None:
    closing = Closing("windows", 100, 35)
    starts = {closing.windows(step, 8)[0].indices[0].item() for step in range(8)}
    assert len(starts) == 8


def test_bit_reversal_spreads_evenly() -> None:
    assert [bit_reversed(step) for step in range(5)] == [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8]
    assert sorted(bit_reversed(step) for step in range(16)) == [i / 16 for i in range(16)]


def test_illegal_settings_are_refused() -> None:
    with pytest.raises(LoopAnimateError, match="closing is 'knot'; choose one of tie"):
        Closing("knot", 35, 35)
    with pytest.raises(LoopAnimateError, match="1000 frames are more than the 35"):
        Closing("tie", 1000, 35)
