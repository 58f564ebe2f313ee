"""Masks of frames by the package's network and by GrabCut, and what they look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from curated_scenes import disc_mask, scene

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.curate.measures.masks import crop, describe_mask, find_object
from loopanimate_training.curate.measures.tracking import iou


@pytest.mark.parametrize("weights", [True, False])
def test_the_object_is_found(weights: bool) -> None:
    assert iou(find_object(scene(1)[0], None, weights), disc_mask()) > 0.8


def test_a_missing_network_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoopAnimateError, match="no ONNX model"):
        find_object(scene(1)[0], tmp_path / "isnet.onnx")


def test_where_nothing_stands_out_the_object_is_everything() -> None:
    assert find_object(np.full((64, 96, 3), 120, np.uint8), None).all()


def test_share_and_main_part() -> None:
    mask = np.zeros((100, 100), bool)
    assert describe_mask(mask).share == describe_mask(mask).main_part == 0.0
    mask[10:40, 10:40] = True
    assert describe_mask(mask).main_part == 1.0
    mask[60:70, 60:70] = True
    assert describe_mask(mask).share == 0.1 and describe_mask(mask).main_part == 0.9


def test_the_crop_holds_the_object_with_a_margin() -> None:
    picture, mask = scene(1)[0], disc_mask()
    cut_out = crop(picture, mask)
    assert 49 <= cut_out.shape[0] <= 62 and 49 <= cut_out.shape[1] <= 62
    assert crop(picture, np.zeros_like(mask)).shape == picture.shape
