"""The mini's quality benchmark, end to end with a toy model on one drawn sticker."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from closeness import assert_close

from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_training.data.stickers.clips import StickerClip
from loopanimate_training.data.stickers.emoji import Emoji
from loopanimate_training.data.stickers.motion import CORE_VERBS, STILL, Motion
from loopanimate_training.data.stickers.render import Placement

pytestmark = pytest.mark.numeric

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "mini_quality.py"


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mini_quality", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["mini_quality"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def clips_of_one_sticker(size_px: int = 64) -> list[StickerClip]:
    sprite = np.zeros((48, 48, 4), np.uint8)
    sprite[8:40, 10:38] = (200, 60, 40, 255)
    sprite[8:20, 10:22, :3] = (30, 60, 200)
    emoji = Emoji("1", "box", (), "1", True, False)
    clip = StickerClip(
        "",
        None,
        emoji,
        Placement(0, 0, 0.6),
        torch.full((size_px, size_px, 3), 0.85),
        size_px,
        sprite=sprite,
    )
    return [replace(clip, caption=f"a box {verb}", motion=Motion(verb)) for verb in CORE_VERBS]


@pytest.fixture(scope="module")
def figures(quality: ModuleType, toy_bundle_path: Path) -> Any:
    pipeline = LoopAnimatePipeline.from_bundle(toy_bundle_path)
    return quality.evaluate(pipeline, clips_of_one_sticker(), frames=15)


def test_every_method_gets_every_prompt(quality: ModuleType, figures: Any) -> None:
    assert not figures.skipped
    for method in quality.METHODS:
        assert [loop.asked for loop in figures.loops[method]] == list(CORE_VERBS)


def test_a_picture_at_rest_obeys_only_stillness(quality: ModuleType) -> None:
    for clip in clips_of_one_sticker():
        picture = clip.draw([0])[0][0]
        found = quality.measure(picture.expand(14, -1, -1, -1), clip, picture, 15)
        assert found.read == STILL
        assert found.motion == found.background_error == found.mse_picture == 0.0
        assert found.seam_ratio is None


def test_the_true_motion_scores_as_true(quality: ModuleType) -> None:
    for clip in clips_of_one_sticker():
        picture = clip.draw([0])[0][0]
        order = [*range(0, 52, 3), *range(48, 0, -3)]
        found = quality.measure(clip.draw(order)[0], clip, picture, 35)
        assert found.obeyed
        assert found.background_error < 0.01
        assert found.motion_ratio is None or found.motion_ratio == pytest.approx(1.0)


def test_another_picture_obeys_nothing(quality: ModuleType) -> None:
    clip = clips_of_one_sticker()[-1]
    garbled = torch.zeros(14, 64, 64, 3)
    found = quality.measure(garbled, clip, clip.draw([0])[0][0], 15)
    assert found.read == ""
    assert not found.obeyed


@pytest.mark.parametrize("baseline", ["ping_pong", "crossfade"])
def test_baselines_start_from_the_picture_and_close(quality: ModuleType, baseline: str) -> None:
    picture = clips_of_one_sticker()[0].draw([0])[0][0]
    loop = getattr(quality, baseline)(picture, 34, np.random.default_rng(1))
    steps = (loop.roll(-1, 0) - loop).abs().mean((1, 2, 3))
    assert_close(loop[0], picture)
    assert loop.shape == (34, 64, 64, 3)
    assert 0 < steps[-1] <= 1.5 * steps[:-1].max()  # the seam is a step as others are


def test_ping_pong_runs_backwards(quality: ModuleType) -> None:
    picture = clips_of_one_sticker()[0].draw([0])[0][0]
    loop = quality.ping_pong(picture, 14, np.random.default_rng(1))
    assert_close(loop[1:], loop[1:].flip(0))


def test_table_and_json_hold_every_figure(quality: ModuleType, figures: Any) -> None:
    table = figures.table()
    for target in quality.TARGETS:
        assert target.title in table
    values = json.loads(json.dumps(figures.to_dict()))
    assert set(values["summary"]) == set(quality.METHODS)
    assert values["summary"]["still"]["  staying still"] == 1.0
    assert values["summary"]["still"]["other verb, other reading (same seed)"] == 0.0
    assert len(values["loops"]["mini"]) == len(CORE_VERBS)
