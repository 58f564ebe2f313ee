"""What is shared by a clip and its windows is what each would have alone."""

from __future__ import annotations

import numpy as np
import pytest
from curated_scenes import scene

from loopanimate_training.curate.analysis import analyse


@pytest.mark.parametrize(("start", "count"), [(0, 19), (6, 19), (3, 12), (9, 21)])
def test_a_part_is_analysed_as_if_it_were_alone(start: int, count: int) -> None:
    frames = scene(30, speed_px=2.0, pan_px=1.0)
    part, alone = analyse(frames, 3).part(start, count), analyse(frames[start : start + count], 3)
    assert len(part.flows) == len(alone.flows) == (count - 1) // 3
    for name in ("frames", "grey", "shifts"):
        assert np.array_equal(getattr(part, name), getattr(alone, name))
    assert all(np.array_equal(a, b) for a, b in zip(part.flows, alone.flows, strict=True))
    # The change of a frame is compared with its neighbours', which a part has on both sides.
    assert np.array_equal(part.changes[1:-1], alone.changes[1:-1])
