"""Reading the motion of drawn clips."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from loopanimate_training.alss import forward_indices
from loopanimate_training.data.photographs.cutouts import CutoutCache
from loopanimate_training.data.stickers.classify import (
    STILL_BELOW,
    MotionReading,
    read_motion,
    track_object,
)
from loopanimate_training.data.stickers.clips import DrawnClips
from loopanimate_training.data.stickers.emoji import EmojiCache
from loopanimate_training.data.stickers.motion import (
    FPS,
    MOVING_VERBS,
    SPEEDS,
    STILL,
    STRENGTHS,
    Motion,
    deformation_at,
)
from loopanimate_training.data.stickers.render import Placement, Scene, draw_background, place

pytestmark = pytest.mark.numeric

SIZE_PX = 48
FORWARD = forward_indices(18, 3)
TIMES_S = torch.tensor(FORWARD) / FPS


def lamp_sprite(side_px: int = 64) -> np.ndarray:
    """[S, S, 4] uint8: an oval with a foot on one side and a horizontal gradient."""
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


def scene_of(
    sprite: np.ndarray, kind: str = "pastel", size: tuple[int, int] = (SIZE_PX, SIZE_PX)
) -> Scene:
    background, _ = draw_background(np.random.default_rng(4), kind, *size)
    return Scene(place(sprite[None], Placement(0.08, -0.05, 0.62), *size)[0], background)


LAMP = scene_of(lamp_sprite())
DISC = scene_of(disc_sprite(), size=(96, 96))  # smooth enough that its edge does not show a turn


def drawn(motion: Motion, scene: Scene = LAMP) -> Tensor:
    return scene.draw(deformation_at(motion, TIMES_S))[0]


def reading_of(motion: Motion, scene: Scene = LAMP) -> MotionReading:
    return read_motion(drawn(motion, scene), scene, FORWARD)


lamp_reading = cache(reading_of)


@pytest.mark.parametrize("words", [("", ""), ("quickly", "strongly"), ("slowly", "gently")])
@pytest.mark.parametrize("verb", MOVING_VERBS)
def test_verb_speed_and_strength_are_read(verb: str, words: tuple[str, str]) -> None:
    speed, strength = words
    reading = lamp_reading(Motion(verb, speed, strength))
    assert reading.verbs == (verb,)
    assert reading.speed == speed
    assert reading.strength == pytest.approx(STRENGTHS[strength], rel=0.25)
    assert reading.explained > 0.9


def test_staying_still_is_read_as_still() -> None:
    reading = lamp_reading(Motion(STILL))
    assert reading.verb == STILL
    assert reading.strength < 0.1 * STILL_BELOW


def test_the_speed_is_read_for_every_speed() -> None:
    for speed in SPEEDS:
        assert lamp_reading(Motion("bobbing up and down", speed)).speed == speed


@pytest.mark.parametrize(
    "verbs",
    [
        ("bobbing up and down", "rocking side to side"),
        ("swaying left and right", "zooming"),
        ("waving", "hopping"),
    ],
)
def test_two_verbs_are_read_as_two(verbs: tuple[str, str]) -> None:
    reading = reading_of(Motion(verbs[0], second_verb=verbs[1]))
    assert set(reading.verbs) == set(verbs)


@pytest.mark.parametrize("verb", ["bobbing up and down", "rocking side to side", "leaning"])
def test_tracks_match_the_deformations_of_the_renderer(verb: str) -> None:
    motion = Motion(verb, "", "gently")
    found, true = track_object(drawn(motion), LAMP), deformation_at(motion, TIMES_S)
    for name in ("x", "y", "angle_rad", "lean"):
        assert (getattr(found, name) - getattr(true, name)).abs().max() < 0.04


def test_displacements_are_those_of_points_of_the_object() -> None:
    shown = lamp_reading(Motion("swaying left and right")).displacements
    true = deformation_at(Motion("swaying left and right"), TIMES_S).x
    assert shown.shape[0] == len(FORWARD) and shown.shape[2] == 2
    assert (shown[..., 0] - true[:, None]).abs().max() < 0.05
    assert shown[..., 1].abs().max() < 0.05


@pytest.mark.parametrize("size", [(36, 64), (64, 36), (96, 96)], ids=str)
def test_pictures_of_all_shapes_and_sizes_are_read(size: tuple[int, int]) -> None:
    scene = scene_of(lamp_sprite(), "gradient", size)
    for verb in ("bouncing", "swaying in the wind"):
        reading = reading_of(Motion(verb), scene)
        assert reading.verbs == (verb,)
        assert reading.strength == pytest.approx(1.0, rel=0.2)


def test_parts_of_photographs_are_read(
    sticker_cache: EmojiCache, cutout_cache: CutoutCache
) -> None:
    clips = DrawnClips(sticker_cache, "train", 32, 32, cutouts=cutout_cache)
    cutouts = cutout_cache.select(False, 32, 32)
    verbs = ("bobbing up and down", "breathing", "swaying in the wind", "hopping", "zooming")
    scenes = [
        clips.cut_out(np.random.default_rng(n), cutouts[2 * n], Motion(verb)).scene
        for n, verb in enumerate(verbs)
    ]
    read = [reading_of(Motion(verb), scene).verb for verb, scene in zip(verbs, scenes, strict=True)]
    assert sum(one == other for one, other in zip(read, verbs, strict=True)) >= len(verbs) - 1


@pytest.mark.parametrize("verb", ["bobbing up and down", "pulsing", "bouncing"])
def test_a_plain_disc_never_seems_to_turn(verb: str) -> None:
    frames = drawn(Motion(verb), DISC)
    assert read_motion(frames, DISC, FORWARD).verbs == (verb,)
    assert track_object(frames, DISC).angle_rad.abs().max() < 0.1


def test_a_plain_disc_that_turns_is_still() -> None:
    assert reading_of(Motion("rocking side to side"), DISC).verb == STILL


def test_grain_is_not_motion() -> None:
    frames = drawn(Motion(STILL))
    grain = 0.03 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    assert read_motion((frames + grain).clamp(0, 1), LAMP, FORWARD).verb == STILL


def test_blurred_frames_are_read_against_the_blurred_still() -> None:
    def blurred(pictures: Tensor) -> Tensor:
        return F.avg_pool2d(pictures.permute(0, 3, 1, 2), 3, 1, 1, count_include_pad=False).permute(
            0, 2, 3, 1
        )

    still, alpha = blurred(LAMP.still()[0][None])[0], LAMP.layer[3:]
    shown = Scene(
        torch.cat([still.permute(2, 0, 1) * alpha, alpha]), blurred(LAMP.background[None])[0]
    )
    for verb in ("nodding", "wobbling like jelly", STILL):
        assert read_motion(blurred(drawn(Motion(verb))), shown, FORWARD).verb == verb


def test_a_clip_without_an_object_is_still() -> None:
    empty = Scene(torch.zeros(4, SIZE_PX, SIZE_PX), LAMP.background)
    reading = read_motion(LAMP.background.expand(6, -1, -1, -1), empty, FORWARD[:6])
    assert reading.verb == STILL
    assert np.isfinite([reading.strength, reading.explained]).all()


def test_an_object_that_vanishes_gives_finite_values() -> None:
    frames = LAMP.background.expand(6, -1, -1, -1)
    reading = read_motion(frames, LAMP, FORWARD[:6])
    assert np.isfinite([reading.strength, reading.explained]).all()
    assert reading.displacements.isfinite().all()
