"""What the network's output means."""

import dataclasses

import pytest
import torch
from torch import Tensor

from loopanimate_core.conditions import repeat_still, shown_frames
from loopanimate_core.preconditioning import Preconditioning, add_noise, still_prior, velocity
from loopanimate_core.schedule import ScheduleConfig, alphas_cumprod

pytestmark = pytest.mark.numeric

SCHEDULES = {
    "noise": ScheduleConfig(),
    "velocity": ScheduleConfig(prediction_type="v_prediction"),
    "a correction of the still prior": ScheduleConfig(
        prediction_type="v_prediction", still_prior=0.3
    ),
}


@pytest.fixture
def still() -> Tensor:
    return torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))


def noised(still: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Z_0, ε, ᾱ and Z_t of clips that change around their still."""
    generator = torch.Generator().manual_seed(1)
    z_0 = repeat_still(still, 7)
    z_0[:, :, 1:] += 0.3 * torch.randn(z_0[:, :, 1:].shape, generator=generator)
    noise = torch.randn(z_0.shape, generator=generator)
    alpha_bar = Preconditioning(ScheduleConfig()).alpha_bar(timesteps)
    return z_0, noise, alpha_bar, add_noise(z_0, noise, alpha_bar)


@pytest.mark.parametrize("timesteps", [(0, 999), (1, 20), (300, 700)])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_prediction_is_the_inverse_of_target(
    still: Tensor, kind: str, timesteps: tuple[int, int]
) -> None:
    """A network that outputs its target exactly predicts the true noise or velocity."""
    preconditioning = Preconditioning(SCHEDULES[kind])
    z_0, noise, alpha_bar, z_t = noised(still, torch.tensor(timesteps))
    target = preconditioning.target(z_0, noise, still, alpha_bar)
    found = preconditioning.prediction(target, z_t, still, alpha_bar)
    truth = noise if kind == "noise" else velocity(z_0, noise, alpha_bar)
    torch.testing.assert_close(found, truth, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_target_is_the_inverse_of_prediction(still: Tensor, kind: str) -> None:
    """Any output is the target of the clip that it stands for."""
    preconditioning = Preconditioning(SCHEDULES[kind])
    _, _, alpha_bar, z_t = noised(still, torch.tensor([200, 800]))
    output = torch.randn(z_t.shape, generator=torch.Generator().manual_seed(2))
    predicted = preconditioning.prediction(output, z_t, still, alpha_bar)
    alpha, sigma = (a.reshape(2, 1, 1, 1, 1).sqrt() for a in (alpha_bar, 1 - alpha_bar))
    if kind == "noise":
        z_0, noise = (z_t - sigma * predicted) / alpha, predicted
    else:
        z_0, noise = alpha * z_t - sigma * predicted, sigma * z_t + alpha * predicted
    target = preconditioning.target(z_0, noise, still, alpha_bar)
    torch.testing.assert_close(target, output, atol=1e-4, rtol=1e-4)


def test_a_clip_that_is_its_still_needs_no_correction(still: Tensor) -> None:
    """The mean of the prior is its velocity, whatever the noise, if no frame changes at all."""
    schedule = dataclasses.replace(SCHEDULES["velocity"], still_prior=1e-3)
    z_0, (noise, alpha_bar) = repeat_still(still, 7), noised(still, torch.tensor([100, 900]))[1:3]
    z_t = add_noise(z_0, noise, alpha_bar)
    found = Preconditioning(schedule).prediction(torch.zeros_like(z_0), z_t, still, alpha_bar)
    torch.testing.assert_close(found, velocity(z_0, noise, alpha_bar), atol=1e-2, rtol=1e-2)


def test_alpha_bar_takes_timesteps_of_any_shape_and_kind() -> None:
    preconditioning, table = Preconditioning(ScheduleConfig()), alphas_cumprod(ScheduleConfig())
    assert preconditioning.alpha_bar(torch.tensor(3)) == table[3]
    found = preconditioning.alpha_bar(torch.tensor([[2.6, 998.9]]))
    assert torch.equal(found, table[[3, 999]][None])


def test_noise_and_velocity_recover_the_clean_latent(still: torch.Tensor) -> None:
    z_0 = repeat_still(still, 3)
    noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(1))
    alpha_bar = alphas_cumprod(ScheduleConfig())[torch.tensor([10, 900])]
    z_t, v = add_noise(z_0, noise, alpha_bar), velocity(z_0, noise, alpha_bar)
    a = alpha_bar.view(2, 1, 1, 1, 1)
    torch.testing.assert_close(a.sqrt() * z_t - (1 - a).sqrt() * v, z_0)
    torch.testing.assert_close((1 - a).sqrt() * z_t + a.sqrt() * v, noise)


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
        z_t = add_noise(z_0, noise, alpha_bar)
        mean, spread = still_prior(z_t, z_still, alpha_bar, std)
        rest = (velocity(z_0, noise, alpha_bar) - mean) / spread
        around = z_t - alpha_bar.sqrt() * z_still[:, :, None]
        assert abs(rest.mean()) < 0.01 and abs(rest.std() - 1) < 0.01
        assert abs((rest * around).mean() / around.std()) < 0.01, "Z_t explains none of the rest"


def test_shown_frames_come_out_as_the_still() -> None:
    """Whatever the network outputs: x_0 = √ᾱ Z_t - √(1-ᾱ) v is the still on shown frames, and only on them."""
    generator = torch.Generator().manual_seed(1)
    z_still, alpha_bar = torch.randn(1, 4, 4, 4, generator=generator), torch.tensor(0.2)
    z_t, output = (torch.randn(1, 4, 5, 4, 4, generator=generator) for _ in range(2))
    preconditioning = Preconditioning(SCHEDULES["a correction of the still prior"])
    v = preconditioning.prediction(output, z_t, z_still, alpha_bar, shown_frames(5))
    z_0 = alpha_bar.sqrt() * z_t - (1 - alpha_bar).sqrt() * v
    away = (z_0 - z_still[:, :, None]).abs().amax((0, 1, 3, 4))
    assert (away[[0, 4]] < 1e-5).all() and (away[1:4] > 0.1).all()


def test_a_still_of_zeros_is_shown_too() -> None:
    """Which frames are shown is passed: a black or grey latent must not look like a frame that is not shown."""
    z_still, alpha_bar = torch.zeros(1, 4, 4, 4), torch.tensor(0.2)
    z_t, output = torch.randn(2, 1, 4, 5, 4, 4, generator=torch.Generator().manual_seed(3))
    preconditioning = Preconditioning(SCHEDULES["a correction of the still prior"])
    v = preconditioning.prediction(output, z_t, z_still, alpha_bar, shown_frames(5))
    z_0 = alpha_bar.sqrt() * z_t - (1 - alpha_bar).sqrt() * v
    torch.testing.assert_close(z_0[:, :, [0, 4]], torch.zeros(1, 4, 2, 4, 4), atol=1e-5, rtol=0)
