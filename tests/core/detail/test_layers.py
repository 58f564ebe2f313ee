"""The still taken apart, its hole filled, and both renderers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loopanimate_core.detail import DetailSettings, render
from loopanimate_core.detail.canvas import place
from loopanimate_core.detail.fill import fill_hole
from loopanimate_core.detail.matte import split_layers
from loopanimate_core.detail.motion import LayerMotion, Motion
from loopanimate_core.detail.settings import frame_count
from loopanimate_core.errors import LoopAnimateError


def test_a_gradient_is_carried_on_into_the_hole():
    y, x = np.indices((80, 120)).astype(np.float32)
    picture = np.stack([0.2 + 0.005 * x, 0.3 + 0.004 * y, 0.1 + 0.002 * (x + y)], -1)
    hole = np.hypot(x - 60, y - 40) < 25
    spoiled = np.where(hole[..., None], 0.0, picture).astype(np.float32)
    filled = fill_hole(spoiled, hole)
    assert np.abs(filled - picture).max() < 0.02
    assert np.array_equal(filled[~hole], picture[~hole])


def test_texture_is_carried_on_into_the_rim():
    rng = np.random.default_rng(0)
    picture = (0.5 + 0.1 * rng.standard_normal((120, 120, 3))).clip(0, 1).astype(np.float32)
    y, x = np.indices((120, 120))
    hole = np.hypot(x - 60, y - 60) < 30
    filled = fill_hole(picture, hole)
    rim = hole & (np.hypot(x - 60, y - 60) > 24)
    assert filled[rim].std() == pytest.approx(picture[~hole].std(), rel=0.25)


@pytest.mark.parametrize("hole", [np.zeros((9, 7), bool), np.ones((9, 7), bool)])
def test_nothing_to_fill_and_nothing_to_fill_from(hole):
    picture = np.random.default_rng(0).random((9, 7, 3), np.float32)
    assert np.array_equal(fill_hole(picture, hole), picture)


def test_a_coarse_mask_finds_the_true_soft_edge():
    y, x = np.indices((120, 120)).astype(np.float32)
    true = np.clip(30.5 - np.hypot(x - 60, y - 60), 0, 1)
    behind = np.stack([0.6 + 0.002 * x, 0.7 + 0.001 * y, 0.8 + 0 * x], -1)
    still = behind + true[..., None] * (np.array([0.2, 0.1, 0.3]) - behind)
    coarse = np.kron(true[3::6, 3::6] > 0.5, np.ones((6, 6), np.float32))
    layers = split_layers(still.astype(np.float32), coarse, mask_px=6)
    assert np.abs(layers.cover - true).mean() < 0.2 * np.abs(coarse - true).mean()


def test_the_layers_put_together_are_the_still(swaying):
    still = swaying.still.numpy()
    layers = split_layers(still, swaying.mask.numpy())
    together = layers.paint[..., :3] + (1.0 - layers.paint[..., 3:]) * layers.background
    assert np.abs(together - still).max() < 1e-6
    assert np.array_equal(layers.background[layers.cover == 0.0], still[layers.cover == 0.0])


@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize("kind", ["rigid", "elastic", "transparent"])
def test_opencv_and_grid_sample_draw_the_same(swaying, monkeypatch, bent, kind):
    poses = torch.zeros(2, 6, dtype=torch.float64)
    poses[1] = torch.tensor([0.07, -0.05, 0.2, 0.1, 0.02, 0.03])
    box = torch.tensor([-0.6, -0.6, 0.6, 0.6])
    bend = 0.02 * torch.randn(2, 6, 6, 2, generator=torch.Generator().manual_seed(0))
    bend[0] = 0.0
    middle = torch.zeros(2, dtype=torch.float64)
    moved = LayerMotion(
        "elastic" if bent else "affine", poses, middle, *((bend, box) if bent else ())
    )
    motion = Motion(moved, LayerMotion("rest", torch.zeros_like(poses), middle))
    canvas = place((96, 96), (48, 48), (96, 96))
    layers = split_layers(swaying.still.numpy(), swaying.mask.numpy())

    def draw() -> np.ndarray:
        if kind == "elastic":
            return render.Elastic(layers.still, layers.cover, canvas, motion, 0.2).draw(1)
        return render.Rigid(layers, canvas, motion, transparent=kind == "transparent").draw(1)

    with_opencv = draw()
    monkeypatch.setattr(render, "uses_opencv", lambda device: False)
    with_torch = draw()
    shown = with_opencv[..., 3:] > 0.05 if kind == "transparent" else np.ones((96, 96, 1), bool)
    difference = np.abs(with_opencv - with_torch) * shown
    assert difference.mean() < 0.1 / 255
    assert np.quantile(difference, 0.999) < 2.0 / 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "loose"}, "mode must be one of auto, rigid, elastic, off, got 'loose'"),
        ({"residual": 1.5}, "residual must be between 0 and 1, got 1.5"),
        ({"residual": float("nan")}, "residual must be between 0 and 1, got nan"),
        ({"band": -0.1}, "band must be between 0 and 1"),
        ({"fps": 0.0}, "fps must be above 0"),
        (
            {"size": "huge"},
            "size must be one of original, model, 1080p, 4k, at most 1080p or WIDTHxHEIGHT, got 'huge'",
        ),
        ({"size": "9000x100"}, "sides of 16 to 8192 pixels"),
        ({"mode": "elastic", "transparent": True}, "mode 'elastic' has none"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(LoopAnimateError, match=message):
        DetailSettings(**options)


@pytest.mark.parametrize(
    ("size", "still", "expected"),
    [
        ("original", (301, 203), (301, 203)),
        ("model", (301, 203), (96, 64)),
        ("1080p", (3000, 4000), (1080, 1440)),
        ("1080p", (1600, 900), (1920, 1080)),
        ("4k", (900, 1600), (2160, 3840)),
        ("at most 1080p", (3000, 4000), (1080, 1440)),
        ("at most 1080p", (301, 203), (301, 203)),
        ("640x480", (3000, 4000), (480, 640)),
    ],
)
def test_output_sizes(size, still, expected):
    assert DetailSettings(size=size).output_size(still, (96, 64)) == expected


def test_frame_counts():
    assert frame_count(34, 8.0, None) == 34
    assert frame_count(34, 8.0, 30.0) == 128
    assert frame_count(34, 8.0, 0.1) == 1
