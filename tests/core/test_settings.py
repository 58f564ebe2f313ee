"""Settings of a loop: precedence and legal values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from loopanimate_core import LoopAnimateError
from loopanimate_core.bundle import BundleConfig
from loopanimate_core.models import LoopUNetConfig
from loopanimate_core.picture.shapes import Shape
from loopanimate_core.ranges import MAX_SEED
from loopanimate_core.settings import SamplingDefaults, resolve_settings

OWN = SamplingDefaults("euler", steps=12, guidance=1.5, frames=15, start=0.9, hold_still=0.06)
MODEL = BundleConfig(
    unet=LoopUNetConfig(),
    vae={"scaling_factor": 1.0},
    text_encoder={"hidden_size": 768, "vocab_size": 49408},
    image_encoder={"projection_dim": 768},
    height_px=96,
    width_px=128,
    defaults=OWN,
)


def test_defaults_come_from_the_model() -> None:
    settings = resolve_settings(MODEL)
    for name in ("scheduler", "steps", "guidance", "frames", "start", "hold_still"):
        assert getattr(settings, name) == getattr(OWN, name)
    assert (settings.height_px, settings.width_px) == (96, 128)
    assert (settings.closing.name, settings.image_guidance, settings.mask) == ("tie", 1.0, "auto")


def test_caller_overrides_preset_and_preset_overrides_model() -> None:
    fast = resolve_settings(MODEL, preset="fast")
    assert (fast.scheduler, fast.steps, fast.guidance) == ("dpmpp_2m_lu", 8, 1.5)
    mine = resolve_settings(MODEL, preset="fast", steps=3, guidance=2.0)
    assert (mine.scheduler, mine.steps, mine.guidance) == ("dpmpp_2m_lu", 3, 2.0)


def test_zero_is_not_treated_as_missing() -> None:
    settings = resolve_settings(MODEL, seed=0, guidance=0.0, hold_still=0.0)
    assert (settings.seed, settings.guidance, settings.hold_still) == (0, 0.0, 0.0)


def test_a_missing_seed_is_drawn() -> None:
    assert len({resolve_settings(MODEL).seed for _ in range(8)}) > 1


def test_diffusers_names_are_accepted() -> None:
    settings = resolve_settings(MODEL, num_frames=21, guidance_scale=4.0, strength=0.5)
    assert (settings.frames, settings.guidance, settings.start) == (21, 4.0, 0.5)
    assert resolve_settings(MODEL, frames=21, num_frames=21).frames == 21


def test_the_size_is_the_models_shape_nearest_to_the_picture() -> None:
    shapes = tuple(Shape(*size) for size in ((96, 96), (128, 72), (72, 128)))
    model = dataclasses.replace(MODEL, height_px=96, width_px=96, shapes=shapes)

    def size(model: BundleConfig, picture_px: tuple[int, int] | None, **chosen: Any) -> Shape:
        settings = resolve_settings(model, picture_px=picture_px, **chosen)
        return Shape(settings.width_px, settings.height_px)

    assert size(model, None) == (96, 96)
    assert size(model, (1080, 1920)) == (128, 72)
    assert size(model, (2340, 1080)) == (72, 128)
    assert size(model, (500, 512)) == (96, 96)
    assert size(model, (1080, 1920), height_px=64, width_px=64) == (64, 64)
    assert size(model, (1080, 1920), height_px=144) == (128, 144)
    assert size(MODEL, (2340, 1080)) == (128, 96)  # a model of one size


def test_long_loops_need_windows() -> None:
    assert resolve_settings(MODEL, frames=200, closing="windows").closing.window_frames == 35
    assert resolve_settings(MODEL, frames=36).closing.window_frames == 36
    with pytest.raises(LoopAnimateError, match=r"frames must be at most 35, .* got 200"):
        resolve_settings(MODEL, frames=200)


@pytest.mark.parametrize("seed", [0, MAX_SEED])
def test_torch_accepts_every_valid_seed(seed: int) -> None:
    assert torch.Generator().manual_seed(resolve_settings(MODEL, seed=seed).seed)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"seed": -1}, "seed must be between 0 and 18446744073709551615, got -1"),
        ({"seed": 2**64}, "seed must be between"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"steps": 0}, "steps must be between 1 and 1000, got 0"),
        ({"steps": 1001}, "steps must be between 1 and 1000, got 1001"),
        ({"steps": 2.5}, "steps must be a whole number, got 2.5"),
        ({"guidance": -1.0}, "guidance must be between 0 and 100, got -1.0"),
        ({"guidance": math.nan}, "guidance must be between 0 and 100, got nan"),
        ({"image_guidance": math.inf}, "image_guidance must be between 0 and 100, got inf"),
        ({"scheduler": "magic"}, "scheduler must be one of dpmpp_2m_lu, .* got 'magic'"),
        ({"preset": "magic"}, "preset must be one of best, fast, got 'magic'"),
        ({"scheduler": "lcm", "steps": 51}, "steps must be between 1 and 50 with scheduler 'lcm'"),
        ({"closing": "knot"}, "closing must be one of tie, shift, windows, off, got 'knot'"),
        ({"frames": 2}, "frames must be at least 3, got 2"),
        ({"frames": 7.0}, "frames must be a whole number, got 7.0"),
        ({"start": 0.0}, "start must be above 0 and at most 1, got 0.0"),
        ({"strength": 1.1}, "start must be above 0 and at most 1, got 1.1"),
        ({"hold_still": 1.5}, "hold_still must be between 0 and 1, got 1.5"),
        ({"hold_still": math.nan}, "hold_still must be between 0 and 1, got nan"),
        ({"height_px": 0}, "height_px .*0"),
        ({"width_px": 100}, "width_px .*100"),
        ({"mask": "cut"}, "mask must be a tensor .* got 'cut'"),
        ({"frames": 7, "num_frames": 9}, "frames and num_frames are the same setting, got 7 and 9"),
        ({"guidance": 1.0, "guidance_scale": 2.0}, "guidance and guidance_scale are the same"),
        ({"start": 1.0, "strength": 0.5}, "start and strength are the same setting"),
    ],
)
def test_invalid_settings_raise_one_sentence(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(LoopAnimateError, match=message) as caught:
        resolve_settings(MODEL, **chosen)
    assert "\n" not in str(caught.value)


def test_a_setting_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(TypeError, match="magic"):
        resolve_settings(MODEL, magic=1)


@pytest.mark.parametrize(
    "own", [{"steps": 0}, {"scheduler": "magic"}, {"frames": 2}, {"fps": 0.0}, {"hold_still": 2}]
)
def test_defaults_of_a_bundle_are_checked_too(own: dict[str, Any]) -> None:
    with pytest.raises(LoopAnimateError, match=f"{next(iter(own))} must be"):
        SamplingDefaults(**own)
