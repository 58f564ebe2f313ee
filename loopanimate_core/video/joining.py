"""Closing and opening loops (for frame interpolation), and joining loops to a longer one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import LoopAnimateError
from ..picture.images import require_frames
from .frame_source import require_one_size


def close_loop(frames: torch.Tensor) -> torch.Tensor:
    """Repeat the first frame at the end: `[P, H, W, 3]` to `[P + 1, H, W, 3]`."""
    return torch.cat([frames, require_frames(frames)[:1]])


def open_loop(frames: torch.Tensor) -> torch.Tensor:
    """Drop the closing frame: `[P + 1, H, W, 3]` to `[P, H, W, 3]`.

    Raises:
        LoopAnimateError: there is only one frame.
    """
    if len(require_frames(frames)) < 2:
        raise LoopAnimateError("a loop to open must have at least 2 frames, got 1 frame")
    return frames[:-1]


def chain_loops(loops: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join loops `[P_i, H, W, 3]`, one after the other.

    The result is seamless if all loops start with the same frame, as loops of one picture do.

    Raises:
        LoopAnimateError: the loops have different sizes.
    """
    for loop in loops:
        require_frames(loop)
    require_one_size(loops)
    return torch.cat([loop.to(loops[0]) for loop in loops])
