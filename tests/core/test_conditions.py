"""Conditions of a loop (Eq. 6-11)."""

import pytest
import torch

from loopanimate_core import LoopAnimateError
from loopanimate_core import conditions as c
from loopanimate_core.schedule import ScheduleConfig, alphas_cumprod

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


def test_noise_and_velocity_recover_the_clean_latent(still: torch.Tensor) -> None:
    z_0 = c.repeat_still(still, 3)
    noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(1))
    alpha_bar = alphas_cumprod(ScheduleConfig())[torch.tensor([10, 900])]
    z_t, v = c.add_noise(z_0, noise, alpha_bar), c.velocity(z_0, noise, alpha_bar)
    a = alpha_bar.view(2, 1, 1, 1, 1)
    torch.testing.assert_close(a.sqrt() * z_t - (1 - a).sqrt() * v, z_0)
    torch.testing.assert_close((1 - a).sqrt() * z_t + a.sqrt() * v, noise)


def test_mask_at_latent_size_is_binary_by_area() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[:, :, :9] = 1  # one column over half of the second latent pixel's 8
    latent = c.mask_to_latent(mask, 2, 2)
    assert latent.squeeze().tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("frames", [1, 2])
def test_too_few_frames_are_refused(frames: int) -> None:
    row = torch.zeros(1, 4, 2, 2)
    with pytest.raises(LoopAnimateError, match=f"frames is {frames}; a loop needs 3 or more"):
        c.LoopConditions(row, row[:, :1], row, row, row, frames)


@pytest.mark.parametrize(("schedule", "last"), [("scaled_linear", 0.004660), ("linear", 0.001579)])
def test_schedules_end_where_the_public_ones_do(schedule: str, last: float) -> None:
    alphas = alphas_cumprod(ScheduleConfig(beta_schedule=schedule))
    assert alphas[-1].item() == pytest.approx(last, abs=1e-6)
    assert (alphas.diff() < 0).all()


def test_the_still_prior_is_the_mean_and_spread_of_the_velocity_given_z_t() -> None:
    """Against the closed form: clips drawn from the prior itself, regressed on Z_t."""
    generator, std = torch.Generator().manual_seed(0), 0.3
    z_still = torch.randn(1, 4, 8, 8, generator=generator)
    changes = std * torch.randn(64, 4, 6, 8, 8, generator=generator)
    z_0, noise = z_still[:, :, None] + changes, torch.randn(changes.shape, generator=generator)
    for alpha_bar in (torch.tensor(0.98), torch.tensor(0.3), torch.tensor(0.01)):
        z_t = c.add_noise(z_0, noise, alpha_bar)
        mean, spread = c.still_prior(z_t, z_still, alpha_bar, std)
        rest = (c.velocity(z_0, noise, alpha_bar) - mean) / spread
        around = z_t - alpha_bar.sqrt() * z_still[:, :, None]
        assert abs(rest.mean()) < 0.01 and abs(rest.std() - 1) < 0.01
        assert abs((rest * around).mean() / around.std()) < 0.01, "Z_t explains none of the rest"


def test_shown_frames_come_out_as_the_still() -> None:
    """Whatever the network says: x_0 = √ᾱ Z_t - √(1-ᾱ) v is the still where Z_SD shows it, and only there."""
    generator = torch.Generator().manual_seed(1)
    z_still, alpha_bar = torch.randn(1, 4, 4, 4, generator=generator), torch.tensor(0.2)
    z_t, output = (torch.randn(1, 4, 5, 4, 4, generator=generator) for _ in range(2))
    z_sd = c.stack_static_dynamic(z_still, 5)
    z_c = c.stack_condition(z_t, z_sd, torch.ones(1, 1, 5, 4, 4))
    velocity = c.corrected_velocity(output, z_c, z_still, alpha_bar, 0.3)
    z_0 = alpha_bar.sqrt() * z_t - (1 - alpha_bar).sqrt() * velocity
    away = (z_0 - z_still[:, :, None]).abs().amax((0, 1, 3, 4))
    assert (away[[0, 4]] < 1e-5).all() and (away[1:4] > 0.1).all()
