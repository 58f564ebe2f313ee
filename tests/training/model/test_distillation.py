"""Consistency distillation: its loss, whole runs of stage 4, and the few-step weights they export."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close
from torch import Tensor, nn
from toy_bundle import build_toy_bundle

from loopanimate_core.bundle import Bundle, bundle_info, read_bundle, write_bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_core.preconditioning import Preconditioning, add_noise
from loopanimate_core.schedule import ScheduleConfig
from loopanimate_core.settings import resolve_settings
from loopanimate_training.cli import main as loopanimate_train
from loopanimate_training.config import DistilConfig, LoraConfig, ModelConfig, RunConfig
from loopanimate_training.data.batch import Batch
from loopanimate_training.loop import train
from loopanimate_training.model.distillation import (
    CLEAN,
    Clips,
    DistillationLoss,
    empty_prompt,
    pseudo_huber,
)
from loopanimate_training.model.export import export_bundle, export_few_steps
from loopanimate_training.model.lora import add_adapters
from loopanimate_training.model.weights import trained_parameters
from loopanimate_training.optimizer import Ema
from loopanimate_training.run.origin import TEACHER
from loopanimate_training.stages import parse_run_name
from loopanimate_training.storage.checkpoint import load_latest
from loopanimate_training.testing import difference, log_difference, toy_run, with_settings

pytestmark = pytest.mark.numeric

FRAMES, SIDE = 5, 8
SCHEDULES = [
    ScheduleConfig(prediction_type="epsilon"),
    ScheduleConfig(prediction_type="v_prediction"),
    ScheduleConfig(prediction_type="v_prediction", still_prior=0.3),
]


def make_batch(bundle: Bundle, timesteps: list[int]) -> Batch:
    rng = torch.Generator().manual_seed(0)
    clips = len(timesteps)
    shape = (clips, 4, FRAMES, SIDE, SIDE)
    latents = torch.randn(shape, generator=rng)
    latents[:, :, -1] = latents[:, :, 0]  # a training clip is a loop
    return Batch(
        latents=latents,
        noise=torch.randn(shape, generator=rng),
        masks=torch.ones(clips, 2, 1, SIDE, SIDE),
        image_embeds=torch.randn(clips, 1, 16, generator=rng),
        text=torch.randn(clips, *empty_prompt(bundle).shape[1:], generator=rng),
        timesteps=torch.tensor(timesteps),
        keep_turn=torch.ones(clips, dtype=torch.bool),
    )


def make_loss(
    bundle: Bundle, guidance: tuple[float, float] = (1.5, 1.5), **settings: Any
) -> DistillationLoss:
    """The student is the bundle's own UNet; teacher and target are copies."""
    teacher = copy.deepcopy(bundle.unet).requires_grad_(False)
    config = DistilConfig(**{"skip": 250, "huber": 0.0, **settings})
    schedule = bundle.config.schedule
    return DistillationLoss(bundle.unet, teacher, empty_prompt(bundle), schedule, config, guidance)


def silent(bundle: Bundle) -> Bundle:
    """The bundle with a UNet that returns zeros."""
    nn.init.zeros_(bundle.unet.conv_out.weight)
    nn.init.zeros_(bundle.unet.conv_out.bias)
    return bundle


# ----------------------------------------------------------------------------------- the loss
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.prediction_type}{s.still_prior}")
def test_clean_and_noise_invert_the_forward_process(schedule: ScheduleConfig) -> None:
    rng = torch.Generator().manual_seed(0)
    z_0, noise = (torch.randn(2, 4, 5, 3, 3, generator=rng) for _ in range(2))
    own, still = Preconditioning(schedule), z_0[:, :, 0]
    alpha_bar = own.alpha_bar(torch.tensor([30, 900]))
    z_t, output = add_noise(z_0, noise, alpha_bar), own.target(z_0, noise, still, alpha_bar)
    prediction = own.prediction(output, z_t, still, alpha_bar)
    found = own.clean_and_noise(prediction, z_t, alpha_bar)
    for ours, true in zip(found, (z_0, noise), strict=True):
        torch.testing.assert_close(ours, true, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.prediction_type}{s.still_prior}")
def test_no_noise_is_the_identity(schedule: ScheduleConfig) -> None:
    """The boundary condition: where there is no noise, f is z itself, whatever the network says."""
    bundle = build_toy_bundle(schedule=schedule)
    loss, batch = make_loss(bundle), make_batch(bundle, [0])

    with torch.no_grad():
        found = loss.clean(bundle.unet, batch.latents, torch.tensor([CLEAN]), Clips.of(batch))
    torch.testing.assert_close(found, batch.latents)


def test_a_student_on_the_path_of_its_teacher_has_no_loss() -> None:
    """Zero outputs, epsilon: DDIM keeps z_t/√ᾱ, which is also what f says at both points of the path."""
    bundle = silent(build_toy_bundle(schedule=ScheduleConfig(prediction_type="epsilon")))
    trained_parameters(bundle, ModelConfig(start=Path("x"), train=("all",)))
    loss = make_loss(bundle)(make_batch(bundle, [300, 700]))
    loss.backward()
    assert loss.item() < 1e-6
    gradients = [p.grad for p in bundle.unet.parameters() if p.grad is not None]
    assert gradients and max(float(g.abs().max()) for g in gradients) < 1e-3


def test_the_loss_of_a_velocity_that_is_zero() -> None:
    """v = 0: the teacher's step is z_s = (√ᾱ_s·√ᾱ_t + √(1-ᾱ_s)·√(1-ᾱ_t))·z_t, and f(z_t) = √ᾱ_t·z_t."""
    schedule = ScheduleConfig(prediction_type="v_prediction")
    bundle = silent(build_toy_bundle(schedule=schedule))
    batch, loss = make_batch(bundle, [600]), make_loss(bundle, skip=200)
    _, z_t = loss.noisy_clips(batch)
    a_t, a_s = (float(loss.alpha_bar(torch.tensor([t]))) for t in (600, 400))
    turned = (a_s * a_t) ** 0.5 + ((1 - a_s) * (1 - a_t)) ** 0.5
    expected = (a_t**0.5 - a_s**0.5 * turned) ** 2 * z_t.square()
    expected = expected.clone()
    with torch.no_grad():
        assert float(loss(batch)) == pytest.approx(float(expected.mean()), rel=1e-3)


def test_without_a_skip_the_student_learns_guidance_alone() -> None:
    """Guidance 1 asks nothing of a student that equals its teacher; more guidance does."""
    bundle = build_toy_bundle(schedule=SCHEDULES[2])
    batch = make_batch(bundle, [300, 999])
    with torch.no_grad():
        none, some = (make_loss(bundle, (w, w), skip=0)(batch).item() for w in (1.0, 8.0))
    assert none < 1e-3 * some, (none, some)


def test_shown_frames_add_nothing_to_the_loss() -> None:
    """With a still prior, the frames that Z_SD shows come out as the still, of student and target alike."""
    bundle = build_toy_bundle(schedule=SCHEDULES[2])
    loss, batch = make_loss(bundle), make_batch(bundle, [600])

    with torch.no_grad():
        t, z_t = loss.noisy_clips(batch)
        clean = loss.clean(bundle.unet, z_t, t, Clips.of(batch))
    for end in (0, -1):
        torch.testing.assert_close(clean[:, :, end], batch.latents[:, :, 0], atol=1e-4, rtol=1e-4)


def test_clips_are_what_sampling_sees() -> None:
    bundle = build_toy_bundle()
    loss, batch = make_loss(bundle), make_batch(bundle, [300, 999])
    t, z_t = loss.noisy_clips(batch)
    assert t.tolist() == [300, 999]
    assert torch.equal(z_t[:, :, 0], z_t[:, :, -1])  # tied
    still = batch.latents[1:, :, :1].expand_as(batch.latents[1:])
    noise = torch.cat([batch.noise[1:, :, :-1], batch.noise[1:, :, :1]], dim=2)
    assert torch.equal(z_t[1:], add_noise(still, noise, loss.alpha_bar(t[1:])))


def test_guidance_is_drawn_within_its_range() -> None:
    bundle = build_toy_bundle()
    loss = make_loss(bundle, guidance=(1.0, 3.0))
    drawn = loss.drawn_guidance(make_batch(bundle, [500] * 64)).flatten()
    assert 1 <= drawn.min() < 1.5 and 2.5 < drawn.max() <= 3


def test_the_target_follows_the_average() -> None:
    bundle = build_toy_bundle()
    trained = trained_parameters(bundle, ModelConfig(start=Path("x"), train=("conv_in",)))
    loss, ema = make_loss(bundle), Ema(trained, 0.5)
    loss.follow(ema)
    with torch.no_grad():
        bundle.unet.conv_in.weight.add_(1.0)
    ema.update(100)
    average = ema.average["unet.conv_in.weight"]
    assert torch.equal(loss.target.conv_in.weight, average)
    assert not torch.equal(average, bundle.unet.conv_in.weight)
    assert not any(p.requires_grad for m in (loss.target, loss.teacher) for p in m.parameters())


def test_pseudo_huber_is_between_squared_and_absolute() -> None:
    small, large = torch.tensor([1e-4, 10.0], dtype=torch.float64)[:, None]
    assert float(pseudo_huber(small, 0.1)) == pytest.approx(1e-8 / 0.2, rel=0.01)
    assert float(pseudo_huber(large, 0.1)) == pytest.approx(9.9, rel=0.01)
    assert float(pseudo_huber(large, 0.0)) == 100


def test_one_step_of_the_student_approaches_the_guided_teacher() -> None:
    """Trained on one clip, f(z_T) comes nearer to where many guided DDIM steps lead."""
    bundle = build_toy_bundle(schedule=SCHEDULES[2], seed=3)
    with torch.no_grad():
        bundle.unet.conv_out.weight.mul_(20.0)  # a random network hardly reads its input
    batch = make_batch(bundle, [999])
    trained = trained_parameters(bundle, ModelConfig(start=Path("x"), train=("all",)))
    # One hop over the whole schedule: the target is the end of the path, and training on it is regression.
    loss = make_loss(bundle, (3.0, 3.0), skip=1000, teacher_steps=20)

    clips = Clips.of(batch)
    t, z_t = loss.noisy_clips(batch)

    def distance() -> float:
        with torch.no_grad():
            guidance = loss.drawn_guidance(batch)
            end = loss.teacher_path(z_t, t, torch.full_like(t, CLEAN), clips, guidance)
            return float((loss.clean(bundle.unet, z_t, t, clips) - end).square().mean())

    before = distance()
    optimizer = torch.optim.Adam(trained.values(), lr=2e-3)
    for _ in range(30):
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()
    assert distance() < 0.5 * before


# ----------------------------------------------------------------------------------- whole runs
@pytest.fixture
def distil(tmp_path: Path, toy_bundle_path: Path) -> Callable[..., RunConfig]:
    """`distil("name", **settings)`: a toy run of stage 4 in its own folder."""

    def make(name: str = "run", **settings: Any) -> RunConfig:
        values = {
            "stage": "4",
            "out": tmp_path / name,
            "steps": 4,
            "save.every_steps": 100,
            "distil.skip": 250,
            "optimizer.lr": 1e-2,
            **settings,
        }
        return toy_run(tmp_path, toy_bundle_path, **values)

    return make


def test_the_row_of_stage_4(distil: Callable[..., RunConfig]) -> None:
    assert parse_run_name("stage4-distil") == parse_run_name(4) == (4, "")
    config = distil()
    assert config.model.train == () and config.model.lora == LoraConfig(rank=32, alpha=32)
    assert (config.loss.drop_turn, config.loss.drop_text) == (1.0, 0.0)
    full = distil(stage="4-full")
    assert full.model.train == ("all",) and full.model.lora is None
    with pytest.raises(LoopAnimateError, match="train_text_encoder must be false"):
        distil(**{"model.train_text_encoder": True})


@pytest.mark.parametrize("stage", ["4", "4-full"])
def test_a_resumed_distillation_is_bit_equal(distil: Callable[..., RunConfig], stage: str) -> None:
    whole, parts = distil("whole", stage=stage), distil("parts", stage=stage)
    train(whole)
    train(with_settings(parts, steps=2))
    train(parts)
    ours, theirs = load_latest(whole.out), load_latest(parts.out)
    assert ours is not None and theirs is not None and TEACHER in ours.origin
    assert difference(ours, theirs) is None and log_difference(whole.out, parts.out) is None


def test_another_teacher_is_another_run(
    distil: Callable[..., RunConfig], toy_bundle_path: Path, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher.safetensors"
    write_bundle(teacher, read_bundle(toy_bundle_path), torch.float32)
    config = distil(**{"distil.teacher": teacher})
    train(with_settings(config, steps=1))
    other = read_bundle(toy_bundle_path)
    with torch.no_grad():
        other.unet.conv_in.bias.add_(1.0)
    write_bundle(teacher, other, torch.float32)
    with pytest.raises(LoopAnimateError, match="its teacher has changed"):
        train(config)


@pytest.mark.parametrize("stage", ["4", "4-full"])
def test_a_bundle_gets_the_few_step_weights(
    distil: Callable[..., RunConfig], toy_bundle_path: Path, tmp_path: Path, stage: str
) -> None:
    config = distil(stage=stage)
    train(config)
    fast, merged = tmp_path / "fast.safetensors", tmp_path / "merged.safetensors"
    with pytest.raises(SystemExit, match="0"):
        loopanimate_train(["export", str(config.out), "-o", str(fast), "--dtype", "float32"])
    export_bundle(config.out, merged, torch.float32)
    ours, start, whole = (read_bundle(path) for path in (fast, toy_bundle_path, merged))
    assert ours.config.defaults.fast is not None
    assert ours.provenance["few_steps"]["stage"] == 4
    for name, weight in start.unet.named_parameters():
        assert torch.equal(ours.unet.get_parameter(name), weight)  # the base as it was
    few = ours.few_step_unet()
    changed = 0
    for name, weight in whole.unet.named_parameters():
        assert_close(few.get_parameter(name), weight)
        changed += not torch.equal(weight, start.unet.get_parameter(name))
    assert changed

    def sample(bundle: Bundle, **settings: Any) -> Tensor:
        picture = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))
        pipeline = LoopAnimatePipeline(bundle)
        size = {"height_px": 32, "width_px": 32, "frames": 5}
        return pipeline(picture, "a", mask="none", seed=0, **size, **settings).latents

    own = dataclasses.asdict(ours.config.defaults.fast)
    assert_close(sample(ours, preset="fast"), sample(whole, **own), depth=NETWORK)
    assert torch.equal(sample(ours), sample(start))


def test_a_base_with_other_weights_is_refused(
    distil: Callable[..., RunConfig], toy_bundle_path: Path, tmp_path: Path
) -> None:
    config = distil(steps=1)
    train(config)
    base, target = tmp_path / "base.safetensors", tmp_path / "out.safetensors"
    other = read_bundle(toy_bundle_path)
    write_bundle(base, other)  # half precision, as bundles are shipped
    assert export_few_steps(config.out, target, base) == 1
    assert bundle_info(target).few_steps > 0
    with torch.no_grad():
        other.unet.conv_in.bias.add_(1.0)
    write_bundle(base, other)
    with pytest.raises(LoopAnimateError, match="did not start from"):
        export_few_steps(config.out, target, base)


def test_training_on_from_a_bundle_drops_its_few_step_weights(
    distil: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = distil(steps=1)
    train(config)
    fast, on = tmp_path / "fast.safetensors", tmp_path / "on.safetensors"
    export_few_steps(config.out, fast)
    further = toy_run(tmp_path, fast, out=tmp_path / "further", steps=1)
    train(further)
    export_bundle(further.out, on)
    assert bundle_info(on).few_steps == 0 and bundle_info(on).config.defaults.fast is None


def test_adapters_survive_the_copies() -> None:
    """Teacher and target are copies of a network with adapters, each with its own."""
    bundle = build_toy_bundle()
    add_adapters(bundle.unet, LoraConfig(rank=2), seed=0)
    loss, batch = make_loss(bundle), make_batch(bundle, [500])

    clips = Clips.of(batch)
    with torch.no_grad():
        t, z_t = loss.noisy_clips(batch)
        before = loss.clean(loss.target, z_t, t, clips)
        for name, p in bundle.unet.named_parameters():
            if name.endswith("lora.up"):
                p.add_(1.0)
        assert torch.equal(loss.clean(loss.target, z_t, t, clips), before)
        assert not torch.allclose(loss.clean(loss.unet, z_t, t, clips), before)


def test_few_lcm_steps_close_the_loop() -> None:
    """The sampler holds the frames that play: renoising cannot open the tie."""
    bundle = build_toy_bundle(schedule=SCHEDULES[2])
    pipeline = LoopAnimatePipeline(bundle)
    picture = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    conditions = pipeline.encode(picture, torch.ones(64, 64), "a", "", 15)
    seen = []
    real = bundle.unet.forward
    bundle.unet.forward = lambda z_c, *rest: (seen.append(z_c[:, :4]), real(z_c, *rest))[1]  # type: ignore[method-assign]
    settings = resolve_settings(
        bundle.config, seed=0, scheduler="lcm", steps=4, guidance=1.0, height_px=64, width_px=64
    )
    latents = pipeline.sample(conditions, settings)
    assert len(seen) == 4 and all(torch.equal(z[:, :, 0], z[:, :, -1]) for z in seen)
    torch.testing.assert_close(latents[:, :, 0], conditions.z_still, atol=1e-4, rtol=1e-4)
