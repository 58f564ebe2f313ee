"""Chain Loops and the pair around frame interpolation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from loopanimate_core.errors import LoopAnimateError


def interpolate(frames: torch.Tensor) -> torch.Tensor:
    """A frame interpolation node: (n - 1) * 2 + 1 frames, without new ones at the seam."""
    between = (frames[1:] + frames[:-1]) / 2
    pairs = torch.stack([frames[:-1], between], 1).flatten(0, 1)
    return torch.cat([pairs, frames[-1:]])


def test_the_pair_interpolates_across_the_seam(nodes: Any, loop: torch.Tensor) -> None:
    (closed,) = nodes["LoopForInterpolation"].execute(loop).result
    (opened,) = nodes["LoopAfterInterpolation"].execute(interpolate(closed)).result
    assert len(opened) == 2 * len(loop)
    assert opened[::2].equal(loop)
    assert opened[-1].equal((loop[-1] + loop[0]) / 2)


def test_loops_are_chained_in_order_and_gaps_are_skipped(nodes: Any, loop: torch.Tensor) -> None:
    parts = {"loop_1": loop[:3], "loop_2": loop[3:5], "loop_7": loop[5:6], "loop_3": None}
    assert nodes["ChainLoops"].execute(**parts).result[0].equal(loop[:6])


def test_loops_of_two_sizes_are_refused(nodes: Any, loop: torch.Tensor) -> None:
    with pytest.raises(LoopAnimateError, match="the same size"):
        nodes["ChainLoops"].execute(loop_1=loop, loop_2=loop[:, ::2])
