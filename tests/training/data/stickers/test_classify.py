"""Reading motions back from rendered clips."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from loopanimate_training.alss import forward_indices, loop_indices
from loopanimate_training.data.stickers.classify import (
    masks_from_background,
    read_motion,
    track_object,
)
from loopanimate_training.data.stickers.motion import (
    CORE_VERBS,
    FPS,
    SPAN_FRAMES,
    SPEEDS,
    STILL,
    STRENGTHS,
    Motion,
    pose_at,
)
from loopanimate_training.data.stickers.render import Placement, draw_background, render_clip

pytestmark = pytest.mark.numeric

SIZE_PX = 64
PLAIN_ORDER = list(range(0, SPAN_FRAMES, 3))
LOOP_ORDER = loop_indices(18, 3, (1, 2, 3, 4), rng=random.Random(0))


def lamp_sprite(side_px: int = 64) -> np.ndarray:
    """[S, S, 4] uint8: an oval with a foot to one side and a gradient across."""
    row, column = np.mgrid[:side_px, :side_px] / side_px - 0.5
    oval = (row / 0.36) ** 2 + (column / 0.22) ** 2 < 1.0
    foot = (abs(row - 0.28) < 0.06) & (abs(column - 0.12) < 0.22)
    red, green = 40 + 200 * (column + 0.5), 30 + 180 * (row + 0.5)
    alpha = np.where(oval | foot, 255.0, 0.0)
    return np.stack([red, green, np.full_like(red, 60.0), alpha], -1).astype(np.uint8)


def disc_sprite(side_px: int = 64) -> np.ndarray:
    row, column = (np.mgrid[:side_px, :side_px] + 0.5) / side_px - 0.5
    alpha = np.where(np.hypot(row, column) < 0.4, 255, 0)
    colour = [np.full_like(alpha, level) for level in (200, 60, 40)]
    return np.stack([*colour, alpha], -1).astype(np.uint8)


def background(kind: str = "pastel") -> Tensor:
    return draw_background(np.random.default_rng(4), kind, SIZE_PX)[0]


def rendered(
    motion: Motion, order: list[int], sprite: np.ndarray | None = None, kind: str = "pastel"
) -> tuple[Tensor, Tensor]:
    times_s = torch.tensor(order, dtype=torch.float32) / FPS
    place = Placement(0.08, -0.05, 0.62)
    sprite = lamp_sprite() if sprite is None else sprite
    return render_clip(sprite, motion, times_s, background(kind), place, SIZE_PX)


@pytest.mark.parametrize("order", [PLAIN_ORDER, LOOP_ORDER], ids=["plain", "loop"])
@pytest.mark.parametrize("verb", CORE_VERBS)
def test_every_verb_is_read_at_every_speed_and_strength(verb: str, order: list[int]) -> None:
    for speed, strength in product(SPEEDS, STRENGTHS):
        frames, masks = rendered(Motion(verb, speed, strength), order)
        assert read_motion(frames, masks).verb == verb, (speed, strength)


@pytest.mark.parametrize("kind", ["pastel", "gradient"])
@pytest.mark.parametrize("verb", CORE_VERBS)
def test_masks_from_the_background_read_the_same(verb: str, kind: str) -> None:
    frames, _ = rendered(Motion(verb), LOOP_ORDER, kind=kind)
    assert read_motion(frames, masks_from_background(frames, background(kind))).verb == verb


def test_masks_from_the_background_are_the_true_ones() -> None:
    frames, masks = rendered(Motion("pulsing"), PLAIN_ORDER)
    found = masks_from_background(frames, background())
    assert found.min() >= 0
    assert found.max() <= 1
    assert ((found > 0.5) != masks).float().mean() < 0.02


@pytest.mark.parametrize("verb", CORE_VERBS[:4])
def test_tracks_are_the_renderers_poses(verb: str) -> None:
    frames, masks = rendered(Motion(verb, "", "gently"), PLAIN_ORDER)
    tracks = track_object(frames, masks)
    true = pose_at(Motion(verb, "", "gently"), torch.tensor(PLAIN_ORDER) / FPS)
    name = {"b": "y", "s": "x", "r": "angle_rad", "p": "log_scale"}[verb[0]]
    assert (getattr(tracks, name) - getattr(true, name)).abs().max() < 0.03


@pytest.mark.parametrize("verb", CORE_VERBS[:4])
@pytest.mark.parametrize(("speed", "cycles"), SPEEDS.items())
def test_speed_is_read_in_cycles(verb: str, speed: str, cycles: float) -> None:
    frames, masks = rendered(Motion(verb, speed), LOOP_ORDER)
    assert read_motion(frames, masks).cycles(forward_indices(18, 3)) == pytest.approx(
        cycles, abs=0.051
    )


@pytest.mark.parametrize("verb", CORE_VERBS[:4])
def test_strength_is_read_as_range(verb: str) -> None:
    gentle, strong = (
        read_motion(*rendered(Motion(verb, "", word), PLAIN_ORDER)).strength
        for word in ("gently", "strongly")
    )
    assert 2.5 < strong / gentle < 3.9  # truly 3.2


@pytest.mark.parametrize("verb", ["bobbing up and down", "swaying left and right", "pulsing"])
def test_a_plain_disc_never_seems_to_turn(verb: str) -> None:
    frames, masks = rendered(Motion(verb), LOOP_ORDER, disc_sprite())
    reading = read_motion(frames, masks)
    assert reading.verb == verb
    assert reading.scores["rocking side to side"] < 0.3 * reading.strength


def test_a_plain_disc_that_turns_is_still() -> None:
    frames, _ = rendered(Motion("rocking side to side"), LOOP_ORDER, disc_sprite())
    assert read_motion(frames, masks_from_background(frames, background())).verb == STILL


def test_grain_is_not_motion() -> None:
    frames, _ = rendered(Motion(STILL), PLAIN_ORDER)
    grain = 0.03 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    noisy = (frames + grain).clamp(0, 1)
    assert read_motion(noisy, masks_from_background(noisy, background())).verb == STILL


def test_a_vanished_object_gives_finite_figures() -> None:
    frames = background().expand(5, -1, -1, -1)
    reading = read_motion(frames, masks_from_background(frames, background()))
    assert reading.verb == STILL
    assert np.isfinite(list(reading.scores.values())).all()
