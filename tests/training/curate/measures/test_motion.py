"""Motion, shake and resting edges of drawn clips."""

from __future__ import annotations

import cv2
import numpy as np
from curated_scenes import WIDTH_PX, backdrop, scene

from loopanimate_training.curate.measures.motion import (
    camera_shifts,
    moving_share,
    resting_edges,
    shake,
    to_grey,
)


def test_a_still_does_not_move_even_with_noise() -> None:
    rng = np.random.default_rng(0)
    noisy = scene(1).astype(np.int16) + rng.integers(-3, 4, (30, 108, 192, 3))
    assert moving_share(to_grey(noisy.clip(0, 255).astype(np.uint8)), 6) == 0.0


def test_more_motion_scores_more() -> None:
    slow, fast = (moving_share(to_grey(scene(40, speed_px=s)), 6) for s in (0.5, 2.0))
    assert 0.0 < slow < fast < 1.0


def test_camera_shifts_are_those_of_the_pan() -> None:
    shifts = camera_shifts(to_grey(scene(20, pan_px=3.0, gone_from=0)))
    assert shifts.shape == (19, 2)
    assert np.allclose(np.abs(shifts[:, 0]), 3.0, atol=0.5) and np.abs(shifts[:, 1]).max() < 0.5


def test_a_steady_pan_does_not_shake_and_a_hand_does() -> None:
    picture, rng = backdrop(), np.random.default_rng(0)
    places = 100 + np.cumsum(rng.integers(-8, 9, 40))
    shaky = np.stack([picture[40:148, left : left + WIDTH_PX] for left in places])
    scores = [
        shake(camera_shifts(to_grey(frames)), WIDTH_PX) for frames in (scene(40, pan_px=3.0), shaky)
    ]
    assert scores[0] < 0.01 < scores[1]
    assert shake(np.zeros((1, 2)), WIDTH_PX) == 0.0


def with_text(frames: np.ndarray) -> np.ndarray:
    frames = frames.copy()
    for frame in frames:
        cv2.putText(frame, "PREVIEW", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 255, 255), 3)
    return frames


def test_text_over_a_moving_camera_rests() -> None:
    moving = scene(90, pan_px=3.0, gone_from=0, sharp=True)
    assert resting_edges(to_grey(moving)) < 0.05 < resting_edges(to_grey(with_text(moving)))


def test_text_over_a_still_camera_cannot_be_told() -> None:
    """The weakness that the docstring names."""
    assert resting_edges(to_grey(with_text(scene(80, sharp=True)))) == 0.0
