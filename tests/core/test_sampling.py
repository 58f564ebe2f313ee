"""sample_loop under every scheduler and closing, with a real (tiny, untrained) LoopUNet."""

import math
from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close, assert_different
from torch import Tensor

from loopanimate_core import LoopAnimateError, LoopConditions, LoopUNet, LoopUNetConfig, sample_loop
from loopanimate_core.closing import CLOSINGS, Closing, closed
from loopanimate_core.preconditioning import Preconditioning
from loopanimate_core.sampling import StepState, filter_flicker, guided_denoiser, prepare_noise
from loopanimate_core.schedule import SCHEDULERS, ScheduleConfig, make_scheduler

pytestmark = pytest.mark.numeric

V = ScheduleConfig(prediction_type="v_prediction")
PLAIN = Preconditioning(ScheduleConfig())


@pytest.fixture(scope="module")
def unet() -> LoopUNet:
    torch.manual_seed(0)
    return LoopUNet(
        LoopUNetConfig(
            block_out_channels=(8, 16),
            layers_per_block=1,
            cross_attention_dim=12,
            num_attention_heads=2,
            motion_num_attention_heads=2,
            norm_num_groups=4,
        )
    ).eval()


def make_conditions(frames: int) -> LoopConditions:
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return LoopConditions(
        draw(1, 4, 6, 6),
        torch.ones(1, 1, 6, 6),
        draw(1, 1, 12),
        draw(1, 5, 12),
        draw(1, 5, 12),
        frames,
    )


@torch.no_grad()
def run(
    unet: LoopUNet,
    *,
    scheduler: str = "dpmpp_2m_lu",
    closing: str = "tie",
    frames: int = 7,
    steps: int = 4,
    start: float = 1.0,
    seed: int = 0,
    guidance: float = 3.0,
    image_guidance: float = 1.0,
    states: list[StepState] | None = None,
) -> Tensor:
    conditions, ring = make_conditions(frames), Closing(closing, frames, 7)
    sampler = make_scheduler(scheduler, V)
    generator = torch.Generator().manual_seed(seed)
    x, timesteps = prepare_noise(
        conditions.z_still, sampler, steps, start, ring.sampled_frames, generator
    )
    denoise = guided_denoiser(unet, conditions, guidance, image_guidance, preconditioning=PLAIN)
    return sample_loop(
        closed(denoise, ring, len(timesteps)),
        x,
        sampler,
        timesteps,
        generator=generator,
        callback=states.append if states is not None else None,
    )


@pytest.mark.parametrize("closing", CLOSINGS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_runs_under_every_closing(
    unet: LoopUNet, scheduler: str, closing: str
) -> None:
    latents = run(unet, scheduler=scheduler, closing=closing)
    assert latents.shape == (1, 4, 7 if closing == "off" else 6, 6, 6)
    assert latents.isfinite().all()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_tie_closes_by_construction(unet: LoopUNet, scheduler: str) -> None:
    """At every step the network's first and last frame are one frame of the sampler, also with fresh noise."""
    seen: list[tuple[Tensor, Tensor]] = []
    conditions, ring = make_conditions(7), Closing("tie", 7, 7)
    sampler, generator = make_scheduler(scheduler, V), torch.Generator().manual_seed(0)
    x, timesteps = prepare_noise(
        conditions.z_still, sampler, 4, 1.0, ring.sampled_frames, generator
    )
    denoise = guided_denoiser(unet, conditions, 3.0, preconditioning=PLAIN)

    def watched(z_t: Tensor, timestep: Tensor, frames: Tensor) -> Tensor:
        seen.append((z_t, frames))
        return denoise(z_t, timestep, frames)

    with torch.no_grad():
        sample_loop(closed(watched, ring, 4), x, sampler, timesteps, generator=generator)
    assert len(seen) == 4
    for z_t, frames in seen:
        assert z_t.shape[2] == 7 and frames.tolist() == [0, 1, 2, 3, 4, 5, 0]
        assert torch.equal(z_t[:, :, 0], z_t[:, :, -1])


@pytest.mark.parametrize("closing", CLOSINGS)
def test_a_seed_means_a_loop(unet: LoopUNet, closing: str) -> None:
    settings: dict[str, Any] = {"scheduler": "euler_ancestral", "closing": closing}
    assert torch.equal(run(unet, **settings), run(unet, **settings))
    assert not torch.equal(run(unet, **settings), run(unet, seed=1, **settings))


@pytest.mark.parametrize("closing", ["tie", "shift"])
@pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp_2m_lu", "dpmpp_2m_karras", "unipc"])
def test_a_perfect_denoiser_finds_the_clip(name: str, closing: str) -> None:
    """With the true velocity every scheduler ends on the clean clip, whatever the closing does to frames."""
    z_0 = torch.randn(1, 4, 6, 3, 3, generator=torch.Generator().manual_seed(5))
    preconditioning = Preconditioning(V)
    sampler = make_scheduler(name, V)
    _, timesteps = prepare_noise(z_0[:, :, 0], sampler, 20, 1.0, 6, torch.Generator())
    noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(6))
    x = sampler.add_noise(z_0, noise, timesteps[:1])

    def velocity(z_t: Tensor, timestep: Tensor, frames: Tensor) -> Tensor:
        a = preconditioning.alpha_bar(timestep)
        return (a.sqrt() * z_t - z_0[:, :, frames]) / (1 - a).sqrt()

    found = sample_loop(closed(velocity, Closing(closing, 7, 7), 20), x, sampler, timesteps)
    error = (found - z_0).norm() / z_0.norm()
    assert error < 0.05  # DDIM stops at the first timestep, with 3 % of noise left


def test_a_denoiser_of_z_c_is_closed_by_sample_loop(unet: LoopUNet) -> None:
    """The other way to call it: a network that reads all nine channels, the condition and a closing."""
    conditions, ring = make_conditions(7), Closing("shift", 7, 7)
    sampler, generator = make_scheduler("ddim", V), torch.Generator().manual_seed(0)
    x, timesteps = prepare_noise(conditions.z_still, sampler, 4, 1.0, 6, generator)

    def denoise(z_c: Tensor, timestep: Tensor) -> Tensor:
        return unet(z_c, timestep, conditions.image_embeds, conditions.text_embeds)

    with torch.no_grad():
        found = sample_loop(denoise, x, sampler, timesteps, conditions.concat(), ring)
    expected = run(unet, scheduler="ddim", closing="shift", guidance=1.0)
    assert_close(found, expected, depth=4 * NETWORK)


def test_less_start_means_fewer_steps_and_a_result_nearer_to_the_still(unet: LoopUNet) -> None:
    still = make_conditions(7).z_still[:, :, None]
    states: list[StepState] = []
    near = run(unet, steps=10, start=0.3, guidance=1.0, states=states)
    far = run(unet, steps=10, guidance=1.0)
    assert len(states) == 3
    assert (near - still).abs().mean() < (far - still).abs().mean()


def test_the_callback_sees_every_step(unet: LoopUNet) -> None:
    states: list[StepState] = []
    latents = run(unet, states=states)
    assert [state.step for state in states] == [0, 1, 2, 3]
    assert states[-1].x is latents or torch.equal(states[-1].x, latents)
    assert states[0].prediction.shape == latents.shape


def test_guidance_of_one_needs_one_branch(unet: LoopUNet) -> None:
    conditions = make_conditions(7)
    z_t, timestep = torch.randn(1, 4, 7, 6, 6), torch.tensor(500)
    z_c, frames = torch.cat([z_t, conditions.concat()], dim=1), torch.arange(7)
    with torch.no_grad():
        plain = unet(z_c, timestep, conditions.image_embeds, conditions.text_embeds)
        denoise = guided_denoiser(unet, conditions, 1.0, preconditioning=PLAIN)
        assert_close(denoise(z_t, timestep, frames), plain, depth=NETWORK)
        # image guidance of 2 doubles what the picture adds
        blind = unet(z_c, timestep, torch.zeros(1, 1, 12), conditions.negative_embeds)
        base = unet(z_c, timestep, conditions.image_embeds, conditions.negative_embeds)
        denoise = guided_denoiser(unet, conditions, 1.0, 2.0, preconditioning=PLAIN)
        both = denoise(z_t, timestep, frames)
        assert_close(both, plain + base - blind, depth=NETWORK)
        assert_different(both, plain)


def test_windows_make_loops_longer_than_the_positions(unet: LoopUNet) -> None:
    latents = run(unet, closing="windows", frames=50, steps=2)
    assert latents.shape[2] == 49


def test_schedules_and_predictions_have_names() -> None:
    with pytest.raises(
        LoopAnimateError, match=r"beta_schedule must be one of linear, .* got 'cosine'"
    ):
        ScheduleConfig(beta_schedule="cosine")


# ------------------------------------------------------------------------------------- holding still
def flickering(moving: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """A loop of 12 frames that flickers with 0.05 everywhere and, if `moving`, swings in one corner."""
    rng = torch.Generator().manual_seed(0)
    still = torch.randn(1, 4, 8, 8, generator=rng)
    z = still[:, :, None] + 0.05 * torch.randn(1, 4, 12, 8, 8, generator=rng)
    if moving:
        z[..., :4, :4] += torch.sin(torch.arange(12) * 2 * math.pi / 12)[:, None, None]
    return z, still


def test_flicker_goes_and_motion_stays() -> None:
    z, still = flickering(moving=True)
    held = filter_flicker(z, still, 0.06)
    left, right = held - still[:, :, None], z - still[:, :, None]
    assert left[..., 4:, 4:].abs().max() < 0.2 * right[..., 4:, 4:].abs().max()
    assert left[..., 4:, 4:].abs().mean() < 0.02 * right[..., 4:, 4:].abs().mean() + 1e-3
    torch.testing.assert_close(held[..., :4, :4], z[..., :4, :4], atol=0.03, rtol=0.02)


def test_a_level_of_zero_and_a_still_clip_are_left_alone() -> None:
    z, still = flickering(moving=False)
    assert filter_flicker(z, still, 0.0) is z
    frozen = still[:, :, None].repeat(1, 1, 5, 1, 1)
    assert torch.equal(filter_flicker(frozen, still, 0.1), frozen)
