"""Closing: which frames the network sees at a step."""

import pytest
import torch

from loopanimate_core import LoopAnimateError
from loopanimate_core.closing import CLOSINGS, Closing, Window, bit_reversed, blend, closed

pytestmark = pytest.mark.numeric


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
    with pytest.raises(LoopAnimateError, match=r"closing must be one of tie, .* got 'knot'"):
        Closing("knot", 35, 35)
    with pytest.raises(LoopAnimateError, match=r"frames must be at most 35, .* got 1000"):
        Closing("tie", 1000, 35)


@pytest.mark.parametrize("name", CLOSINGS)
@pytest.mark.parametrize("frames", [7, 40])
def test_a_ring_that_every_window_agrees_about_comes_back(name: str, frames: int) -> None:
    """Windows that show a frame as it is blend to that frame, however often and with what weight they show it."""
    closing = Closing(name, frames, 15 if name == "windows" else frames)
    z_t = torch.randn(2, 4, closing.sampled_frames, 3, 3)
    seen: list[torch.Tensor] = []

    def denoise(window: torch.Tensor, timestep: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        seen.append(frames)
        assert torch.equal(window, z_t[:, :, frames])
        return window

    for step in range(4):
        found = closed(denoise, closing, 4)(z_t, torch.tensor(500), step)
        torch.testing.assert_close(found, z_t)
    assert len(torch.cat(seen)) >= 4 * closing.sampled_frames


def test_blend_is_the_weighted_mean_of_each_frame() -> None:
    windows = [
        Window(torch.tensor([0, 1, 0]), torch.tensor([1.0, 1.0, 3.0])),
        Window(torch.tensor([1, 2]), torch.tensor([2.0, 5.0])),
    ]
    values = [torch.tensor([8.0, 3.0, 4.0]), torch.tensor([6.0, 7.0])]
    predictions = (value[None, None, :, None, None] for value in values)
    found = blend(predictions, windows, 3).flatten()
    torch.testing.assert_close(found, torch.tensor([5.0, 5.0, 7.0]))
