"""sample_loop under every scheduler and closing, with a real (tiny, untrained) LoopUNet."""

import math
from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close, assert_different
from torch import Tensor

from loopanimate_core import LoopAnimateError, LoopConditions, LoopUNet, LoopUNetConfig, sample_loop
from loopanimate_core.closing import CLOSINGS, Closing
from loopanimate_core.sampling import StepState, filter_flicker, guided_denoiser, prepare_noise
from loopanimate_core.schedule import SCHEDULERS, ScheduleConfig, alphas_cumprod, make_scheduler

V = ScheduleConfig(prediction_type="v_prediction")


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
    conditions, closed = make_conditions(frames), Closing(closing, frames, 7)
    sampler = make_scheduler(scheduler, V)
    generator = torch.Generator().manual_seed(seed)
    x, timesteps = prepare_noise(
        conditions.z_still, sampler, steps, start, closed.sampled_frames, generator
    )
    return sample_loop(
        guided_denoiser(unet, conditions, guidance, image_guidance, schedule=ScheduleConfig()),
        x,
        sampler,
        timesteps,
        conditions.concat(),
        closed,
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
    seen: list[Tensor] = []
    conditions, closed = make_conditions(7), Closing("tie", 7, 7)
    sampler, generator = make_scheduler(scheduler, V), torch.Generator().manual_seed(0)
    x, timesteps = prepare_noise(
        conditions.z_still, sampler, 4, 1.0, closed.sampled_frames, generator
    )
    denoise = guided_denoiser(unet, conditions, 3.0, schedule=ScheduleConfig())

    def watched(z_c: Tensor, timestep: Tensor) -> Tensor:
        seen.append(z_c)
        return denoise(z_c, timestep)

    with torch.no_grad():
        sample_loop(
            watched, x, sampler, timesteps, conditions.concat(), closed, generator=generator
        )
    assert len(seen) == 4
    for z_c in seen:
        assert z_c.shape[2] == 7
        assert torch.equal(z_c[:, :, 0], z_c[:, :, -1])


@pytest.mark.parametrize("closing", CLOSINGS)
def test_a_seed_means_a_loop(unet: LoopUNet, closing: str) -> None:
    settings: dict[str, Any] = {"scheduler": "euler_ancestral", "closing": closing}
    assert torch.equal(run(unet, **settings), run(unet, **settings))
    assert not torch.equal(run(unet, **settings), run(unet, seed=1, **settings))


def test_a_perfect_denoiser_finds_the_clip() -> None:
    """With the true velocity every scheduler ends on the clean clip, whatever the closing does to frames."""
    z_0 = torch.randn(1, 4, 6, 3, 3, generator=torch.Generator().manual_seed(5))
    alpha_bar = alphas_cumprod(V)
    for name in ("ddim", "euler", "dpmpp_2m_lu", "dpmpp_2m_karras", "unipc"):
        for closing in ("tie", "shift"):
            sampler, closed = make_scheduler(name, V), Closing(closing, 7, 7)
            sampler.set_timesteps(20)
            if hasattr(sampler, "set_begin_index"):
                sampler.set_begin_index(0)
            noise = torch.randn(z_0.shape, generator=torch.Generator().manual_seed(6))
            x = sampler.add_noise(z_0, noise, sampler.timesteps[:1])
            step = iter(range(100))

            def velocity(
                z_c: Tensor, timestep: Tensor, closed: Closing = closed, step: Any = step
            ) -> Tensor:
                (window,) = closed.windows(next(step), 20)
                a = alpha_bar[timestep.long()]
                clean, z_t = z_0[:, :, window.indices], z_c[:, :4]
                return (a.sqrt() * z_t - clean) / (1 - a).sqrt()

            found = sample_loop(
                velocity, x, sampler, sampler.timesteps, torch.zeros(1, 5, 7, 3, 3), closed
            )
            error = (found - z_0).norm() / z_0.norm()
            assert error < 0.05, name  # DDIM stops at the first timestep, with 3 % of noise left


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
    z_c, timestep = torch.randn(1, 9, 7, 6, 6), torch.tensor(500)
    with torch.no_grad():
        plain = unet(z_c, timestep, conditions.image_embeds, conditions.text_embeds)
        guided = guided_denoiser(unet, conditions, 1.0, schedule=ScheduleConfig())(z_c, timestep)
        assert_close(guided, plain, depth=NETWORK)
        # image guidance of 2 doubles what the picture adds
        blind = unet(z_c, timestep, torch.zeros(1, 1, 12), conditions.negative_embeds)
        base = unet(z_c, timestep, conditions.image_embeds, conditions.negative_embeds)
        both = guided_denoiser(
            unet, conditions, 1.0, image_guidance=2.0, schedule=ScheduleConfig()
        )(z_c, timestep)
        assert_close(both, plain + base - blind, depth=NETWORK)
        assert_different(both, plain)


def test_windows_make_loops_longer_than_the_positions(unet: LoopUNet) -> None:
    latents = run(unet, closing="windows", frames=50, steps=2)
    assert latents.shape[2] == 49


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 0.0}, "start is 0.0; it must be above 0 and at most 1"),
        ({"steps": 0}, "steps is 0; it must be 1 to 1000"),
        ({"scheduler": "magic"}, "unknown scheduler 'magic'; choose one of dpmpp_2m_lu"),
    ],
)
def test_illegal_settings_are_refused(
    unet: LoopUNet, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(LoopAnimateError, match=message):
        run(unet, **settings)


def test_schedules_and_predictions_have_names() -> None:
    with pytest.raises(LoopAnimateError, match="beta_schedule is 'cosine'; choose one of linear"):
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


@pytest.mark.parametrize("level", [-0.1, 1.5, math.nan])
def test_a_level_out_of_range_is_one_sentence(level: float) -> None:
    z, still = flickering(moving=False)
    with pytest.raises(LoopAnimateError, match=r"hold_still is .*; it must be 0 \(off\) to 1"):
        filter_flicker(z, still, level)
