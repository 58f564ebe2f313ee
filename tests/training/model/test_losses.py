"""The objective, the optimiser's schedule and weight averaging."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from loopanimate_core.bundle import read_bundle
from loopanimate_core.schedule import ScheduleConfig, alphas_cumprod
from loopanimate_training.config import LossConfig, ModelConfig, OptimizerConfig
from loopanimate_training.data.loader import shifted
from loopanimate_training.model.losses import (
    Batch,
    DiffusionLoss,
    min_snr_weight,
    motion_weights,
    network_input,
)
from loopanimate_training.model.weights import trained_parameters
from loopanimate_training.optimizer import (
    Ema,
    ema_decay,
    lr_factor,
    make_optimizer,
    set_learning_rate,
)

pytestmark = pytest.mark.numeric

FRAMES = 5


def make_batch(clips: int = 2, side: int = 4) -> Batch:
    rng = torch.Generator().manual_seed(0)
    shape = (clips, 4, FRAMES, side, side)
    return Batch(
        latents=torch.randn(shape, generator=rng),
        noise=torch.randn(shape, generator=rng),
        masks=torch.zeros(clips, 2, 1, side, side),
        image_embeds=torch.randn(clips, 1, 16, generator=rng),
        text=torch.full((clips, 77), 513),
        timesteps=torch.tensor([100, 900]),
        keep_turn=torch.tensor([True, False]),
    )


def test_a_dropped_turning_frame_is_zeros_in_z_sd_and_ones_in_z_m() -> None:
    batch = make_batch()
    z_c = network_input(batch, torch.tensor([0.5, 0.5]))
    z_t, z_sd, z_m = z_c[:, :4], z_c[:, 4:8], z_c[:, 8:]
    middle = FRAMES // 2
    torch.testing.assert_close(z_t, math.sqrt(0.5) * (batch.latents + batch.noise))
    assert (
        torch.equal(z_sd[0, :, middle], batch.latents[0, :, middle]) and not z_m[0, :, middle].any()
    )
    assert not z_sd[1, :, middle].any() and z_m[1, :, middle].all()
    for end in (0, -1):
        assert torch.equal(z_sd[:, :, end], batch.latents[:, :, 0]) and not z_m[:, :, end].any()
    assert not z_sd[:, :, 1].any() and z_m[:, :, 1].all()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights_the_error_of_x_0(prediction_type: str) -> None:
    alpha_bar = alphas_cumprod(ScheduleConfig())[::50]
    snr = alpha_bar / (1 - alpha_bar)
    # x_0 error for unit error of the prediction: 1/sqrt(SNR) for noise, sqrt(1-ᾱ) for velocity
    per_unit = 1 / snr if prediction_type == "epsilon" else 1 - alpha_bar
    weight = min_snr_weight(alpha_bar, 5.0, prediction_type)
    torch.testing.assert_close(weight, snr.clamp(max=5.0) * per_unit)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_loss_falls_when_overfitting(toy_bundle_path: Path, prediction_type: str) -> None:
    bundle = read_bundle(toy_bundle_path)
    parameters = trained_parameters(
        bundle, ModelConfig(start=toy_bundle_path, train=("all",), train_text_encoder=True)
    )
    model = DiffusionLoss(
        bundle.unet,
        bundle.text_encoder,
        ScheduleConfig(prediction_type=prediction_type),
        LossConfig(),
    )
    config = OptimizerConfig(lr=4e-3)
    optimizer, batch, losses = make_optimizer(parameters, config), make_batch(), []
    for _ in range(60):
        loss = model(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_every_trained_weight_gets_a_gradient(toy_bundle_path: Path) -> None:
    bundle = read_bundle(toy_bundle_path)
    model_config = ModelConfig(start=toy_bundle_path, train=("all",), train_text_encoder=True)
    parameters = trained_parameters(bundle, model_config)
    config = LossConfig(min_snr=5.0, motion_weight=2.0)
    DiffusionLoss(bundle.unet, bundle.text_encoder, ScheduleConfig(), config)(
        make_batch()
    ).backward()
    assert [name for name, p in parameters.items() if p.grad is None] == []


def test_only_moving_latents_get_a_higher_weight() -> None:
    z_0 = torch.zeros(1, 4, FRAMES, 4, 4)
    z_0[:, :, 2, 1, 1] = 0.5
    z_0[:, :, 3, 1, 1] = 9.0
    weights = motion_weights(z_0, 3.0)
    assert weights[0, 0, 2, 1, 1] == 2.5
    assert weights[0, 0, 3, 1, 1] == 4.0
    assert weights.sum() == z_0[0, 0].numel() + 1.5 + 3.0


def test_timestep_shift_moves_timesteps_towards_noise() -> None:
    shares = [i / 8 for i in range(9)]
    assert [shifted(share, 1.0) for share in shares] == shares
    moved = [shifted(share, 3.0) for share in shares]
    assert moved[0] == 0 and moved[-1] == 1 and moved[4] == 0.75
    assert all(a < b for a, b in itertools.pairwise(moved))


def test_learning_rate_schedules() -> None:
    linear = OptimizerConfig(lr=1.0, schedule="linear", warmup_steps=4, final_lr_share=0.1)
    assert [lr_factor(linear, step, 104) for step in (0, 3, 4, 54, 104)] == pytest.approx(
        [0.25, 1, 1, 0.55, 0.1]
    )
    cosine = OptimizerConfig(lr=1.0, schedule="cosine")
    assert [lr_factor(cosine, step, 100) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert lr_factor(OptimizerConfig(lr=1.0), 10**6, 1) == 1


def test_text_encoder_has_its_own_learning_rate() -> None:
    parameters = {
        "unet.a": nn.Parameter(torch.zeros(1)),
        "text_encoder.b": nn.Parameter(torch.zeros(1)),
    }
    config = OptimizerConfig(lr=1e-3, warmup_steps=2, text_encoder_lr_share=0.3)
    optimizer = make_optimizer(parameters, config)
    assert set_learning_rate(optimizer, config, 0, 10) == pytest.approx(5e-4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-4, 1.5e-4])


def test_weight_average_follows_its_definition() -> None:
    weight = nn.Parameter(torch.zeros(3))
    ema, expected = Ema({"w": weight}, decay=0.9), torch.zeros(3)
    for step in range(100):
        weight.data.fill_(step)
        decay = min(0.9, (1 + step) / (10 + step))
        assert ema_decay(step, 0.9) == decay
        expected = decay * expected + (1 - decay) * step
        ema.update(step)
    torch.testing.assert_close(ema.average["w"], expected)
