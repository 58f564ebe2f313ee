"""Conditions of a loop (Eq. 6-11)."""

import pytest
import torch

from loopanimate_core import LoopAnimateError
from loopanimate_core import conditions as c

pytestmark = pytest.mark.numeric

FRAMES = 15


@pytest.fixture
def still() -> torch.Tensor:
    return torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))


def test_static_dynamic_stack_holds_the_still_at_both_ends_only(still: torch.Tensor) -> None:
    stack = c.stack_static_dynamic(still, FRAMES)
    assert stack.shape == (2, 4, FRAMES, 6, 5)
    assert torch.equal(stack[:, :, 0], still)
    assert torch.equal(stack[:, :, -1], still)
    assert not stack[:, :, 1:-1].any()


def test_static_dynamic_stack_holds_the_turning_frame_in_the_middle(still: torch.Tensor) -> None:
    turn = still + 1
    stack = c.stack_static_dynamic(still, FRAMES, turn)
    assert torch.equal(stack[:, :, 7], turn)
    assert not stack[:, :, 1:7].any()
    assert not stack[:, :, 8:-1].any()


def test_semantic_mask_is_ones_between_the_masks() -> None:
    mask = torch.zeros(2, 1, 6, 5)
    z_m = c.semantic_mask(mask, FRAMES, mask)
    assert z_m[:, :, [0, 7, 14]].sum() == 0
    assert torch.equal(z_m[:, :, 1:7], torch.ones(2, 1, 6, 6, 5))
    assert c.semantic_mask(torch.ones(1, 1, 6, 5), FRAMES).min() == 1  # stage 1


def test_shown_frames_are_those_that_z_sd_shows(still: torch.Tensor) -> None:
    stack = c.stack_static_dynamic(still, FRAMES)
    assert torch.equal(c.shown_frames(FRAMES), stack.any(1).any(-1).any(-1).any(0))


def test_a_dropped_turning_frame_looks_as_at_inference(still: torch.Tensor) -> None:
    turn, m_turn = still + 1, torch.zeros(2, 1, 6, 5)
    z, m = c.drop_turn(turn, m_turn, torch.tensor([True, False]))
    assert torch.equal(z[0], turn[0]) and torch.equal(m[0], m_turn[0])
    trained = torch.cat([c.stack_static_dynamic(still, 5, z), c.semantic_mask(m_turn, 5, m)], 1)
    inference = torch.cat([c.stack_static_dynamic(still, 5), c.semantic_mask(m_turn, 5)], 1)
    assert torch.equal(trained[1], inference[1])
    assert not torch.equal(trained[0], inference[0])


def test_condition_has_nine_channels_in_the_papers_order(still: torch.Tensor) -> None:
    z_t, z_sd, z_m = (
        torch.full((2, 4, 3, 6, 5), 1.0),
        torch.full((2, 4, 3, 6, 5), 2.0),
        torch.ones(2, 1, 3, 6, 5),
    )
    z_c = c.stack_condition(z_t, z_sd, z_m * 3)
    assert z_c.mean((0, 2, 3, 4)).tolist() == [1] * 4 + [2] * 4 + [3]


def test_mask_at_latent_size_is_binary_by_area() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[:, :, :9] = 1  # one column over half of the second latent pixel's 8
    latent = c.mask_to_latent(mask, 2, 2)
    assert latent.squeeze().tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("frames", [1, 2])
def test_too_few_frames_are_refused(frames: int) -> None:
    row = torch.zeros(1, 4, 2, 2)
    with pytest.raises(LoopAnimateError, match=f"frames must be at least 3, got {frames}"):
        c.LoopConditions(row, row[:, :1], row, row, row, frames)
