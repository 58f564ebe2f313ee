"""Which clips a run trains on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loopanimate_training.config import DataConfig
from loopanimate_training.data.index.selection import is_held_out


@given(st.integers(0, 2**32), st.floats(0.01, 0.6))
def test_the_held_out_share_is_a_share(seed: int, share: float) -> None:
    origins = np.random.default_rng(seed).integers(0, 2**64, 4000, np.uint64)
    chosen = is_held_out(origins, share)
    assert abs(chosen.mean() - share) < 0.05
    assert np.array_equal(is_held_out(origins[::-1], share), chosen[::-1])
    assert not (chosen & ~is_held_out(origins, min(share + 0.2, 1.0))).any()


def test_leave_out_is_the_former_name_of_skip() -> None:
    old = DataConfig.model_validate({"source": "videos", "path": "x", "uncaptioned": "leave_out"})
    assert old == DataConfig(source="videos", path=Path("x"), uncaptioned="skip")
