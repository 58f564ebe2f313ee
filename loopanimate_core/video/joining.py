"""Loops as sequences of frames: ready for frame interpolation, and one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import LoopAnimateError
from ..picture.images import require_frames


def close_loop(frames: torch.Tensor) -> torch.Tensor:
    """`[P, H, W, 3]` to `[P + 1, H, W, 3]`: the first frame again at the end."""
    return torch.cat([frames, require_frames(frames)[:1]])


def open_loop(frames: torch.Tensor) -> torch.Tensor:
    """`[P + 1, H, W, 3]` to `[P, H, W, 3]`: without the closing frame.

    Raises:
        LoopAnimateError: there is only one frame.
    """
    if len(require_frames(frames)) < 2:
        raise LoopAnimateError("1 frame has no closing frame to drop, 2 or more are needed")
    return frames[:-1]


def chain_loops(loops: Sequence[torch.Tensor]) -> torch.Tensor:
    """Loops `[P_i, H, W, 3]` one after the other.

    Seamless where each begins where the one before it began, as loops of one picture do.

    Raises:
        LoopAnimateError: their sizes differ.
    """
    (height, width) = require_frames(loops[0]).shape[1:3]
    for number, loop in enumerate(loops[1:], start=2):
        size = require_frames(loop).shape[1:3]
        if tuple(size) != (height, width):
            raise LoopAnimateError(
                f"loop {number} is {size[1]} x {size[0]} pixels and loop 1 {width} x {height};"
                " loops in a chain must be of one size"
            )
    return torch.cat([loop.to(loops[0]) for loop in loops])
