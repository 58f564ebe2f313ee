"""Flow carries the object's mask, and tells when the object is gone or never moved."""

from __future__ import annotations

import numpy as np
from curated_scenes import disc_mask, scene

from loopanimate_training.curate.measures.motion import to_grey
from loopanimate_training.curate.measures.tracking import Track, backward_flows, follow, iou


def followed(frames: np.ndarray, mask: np.ndarray) -> Track:
    return follow(frames, mask, backward_flows(to_grey(frames)))


def test_the_mask_follows_the_object() -> None:
    track = followed(scene(60)[::3], disc_mask())
    assert track.masks.shape == (20, 108, 192)
    assert all(iou(track.masks[n], disc_mask(3 * n)) > 0.6 for n in range(20))
    assert track.presence.min() > 0.6 and track.presence[0] == 1.0


def test_an_object_that_vanishes_is_missed() -> None:
    assert followed(scene(60, gone_from=30)[::3], disc_mask()).presence[-1] < 0.15


def test_the_object_moves_against_its_background_and_a_wrong_mask_does_not() -> None:
    """Also with a camera that pans: motion counts against the background."""
    for pan_px in (0.0, 1.0):
        frames = scene(60, pan_px=pan_px)[::3]
        right = followed(frames, disc_mask())
        wrong = np.zeros((108, 192), bool)
        wrong[:30, :40] = True
        assert right.object_motion > 3 * followed(frames, wrong).object_motion
        assert right.object_motion > right.other_motion
    assert followed(scene(60, pan_px=1.0)[::3], disc_mask()).background_motion > 0.005


def test_a_still_has_everything_and_no_motion() -> None:
    track = followed(np.stack([scene(1)[0]] * 5), disc_mask())
    assert track.presence.min() > 0.95 and track.object_motion < 1e-3


def test_masks_of_nothing_and_of_everything_are_survived() -> None:
    for mask in (np.zeros((108, 192), bool), np.ones((108, 192), bool)):
        track = followed(scene(9)[::3], mask)
        assert np.isfinite(track.presence).all() and np.isfinite(track.object_motion)


def test_iou() -> None:
    one, none = disc_mask(), np.zeros((108, 192), bool)
    assert iou(one, one) == iou(none, none) == 1.0 and iou(one, none) == 0.0
