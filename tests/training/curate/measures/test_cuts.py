"""Cuts are found to the frame, and moving cameras are not taken for cuts."""

from __future__ import annotations

import numpy as np
from curated_scenes import backdrop, scene

from loopanimate_training.curate.measures.cuts import colour_changes, cut_frames

LIMIT = 0.35


def test_a_cut_is_found_at_its_first_frame() -> None:
    shots = [scene(20), scene(30, colour=(30, 40, 250), seed=1) // 2, scene(10)]
    changes = colour_changes(np.concatenate(shots))
    assert changes.shape == (59,) and changes.min() >= 0.0 and changes.max() <= 1.0
    assert cut_frames(changes, LIMIT) == [20, 50]


def test_a_cut_between_pictures_of_the_same_colours_is_found() -> None:
    """The halves of a picture change places: the histogram of the whole stays the same."""
    frame = np.zeros((60, 96, 3), np.uint8)
    frame[:, :48] = (200, 120, 120)
    frame[:, 48:] = (60, 36, 36)
    frames = np.stack([frame] * 10 + [frame[:, ::-1]] * 10)
    assert cut_frames(colour_changes(frames), LIMIT) == [10]


def test_stills_pans_and_moving_objects_have_no_cuts() -> None:
    for frames in (scene(40), scene(40, pan_px=5.0), np.stack([backdrop()] * 5)):
        assert cut_frames(colour_changes(frames), LIMIT) == []


def test_slowly_changing_light_is_no_cut() -> None:
    dimmed = [(scene(1)[0] * share).astype(np.uint8) for share in np.linspace(1.0, 0.3, 40)]
    assert cut_frames(colour_changes(np.stack(dimmed)), LIMIT) == []
