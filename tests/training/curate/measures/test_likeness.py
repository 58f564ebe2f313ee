"""Perceptual hashes and natural loops."""

from __future__ import annotations

import io

import cv2
import numpy as np
from curated_scenes import scene
from PIL import Image

from loopanimate_training.curate.measures.likeness import difference_hash, loop_length
from loopanimate_training.curate.measures.motion import to_grey


def soft_picture(seed: int) -> np.ndarray:
    """[90, 120, 3] uint8 with large areas, as pictures have them."""
    small = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (120, 90), interpolation=cv2.INTER_CUBIC)


def test_a_hash_survives_scaling_and_compression() -> None:
    picture = soft_picture(3)
    smaller = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=40)
    coarse = np.asarray(Image.open(buffer))
    for copy in (smaller, coarse):
        assert (difference_hash(picture) ^ difference_hash(copy)).bit_count() <= 4


def test_other_pictures_have_other_hashes() -> None:
    bits = (difference_hash(soft_picture(1)) ^ difference_hash(soft_picture(2))).bit_count()
    assert bits > 10 and 0 <= difference_hash(soft_picture(1)) < 1 << 64


def test_a_swing_is_a_loop_of_its_period() -> None:
    """One round is 60π/speed frames."""
    period = round(60 * np.pi / 6)
    assert abs(loop_length(to_grey(scene(2 * period, speed_px=6.0))) - period) <= 1


def test_a_file_of_exactly_one_round_is_a_loop() -> None:
    period = round(60 * np.pi / 6)
    assert abs(loop_length(to_grey(scene(period, speed_px=6.0))) - period) <= 1


def test_stills_and_one_way_motion_are_no_loops() -> None:
    still, one_way = np.stack([scene(1)[0]] * 30), scene(40, pan_px=4.0, gone_from=0)
    assert loop_length(to_grey(still)) == loop_length(to_grey(one_way)) == 0
    assert loop_length(to_grey(scene(5))) == 0
