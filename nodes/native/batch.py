"""Which frames of a latent batch belong to which loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from loopanimate_core.conditions import MIN_FRAMES

FRAMES_KEY = "loop_frames"
"""In a prompt and in a latent: F, the frames that Build Loop Conditions was set to."""


@dataclass(frozen=True)
class LoopBatch:
    """`loops` loops of F = `frames` frames one after another.

    Attributes:
        finished: the batch holds only the F-1 frames of each loop that play.
    """

    loops: int
    frames: int
    finished: bool = False

    @property
    def rows(self) -> int:
        """Frames of one loop in the batch."""
        return self.frames - self.finished

    def split(self, batch: Tensor) -> list[Tensor]:
        """The loops of a batch."""
        return list(batch.split(self.rows))


def loops_in(rows: int, frames: int | None) -> LoopBatch:
    """Read a batch of `rows` frames; what is not whole loops of F = `frames` frames is one loop of its own length."""
    if frames is not None and frames > MIN_FRAMES:
        if rows % frames == 0:
            return LoopBatch(rows // frames, frames)
        if rows % (frames - 1) == 0:
            return LoopBatch(rows // (frames - 1), frames, finished=True)
    return LoopBatch(1, rows)


def frames_in_prompts(prompts: Iterable[Mapping[str, Any]]) -> int | None:
    """F of the first prompt that Build Loop Conditions has made; None if there is none."""
    found = (prompt[FRAMES_KEY] for prompt in prompts if FRAMES_KEY in prompt)
    return next(found, None)


def with_closing_frames(batch: Tensor, loops: LoopBatch) -> Tensor:
    """Finished loops with their first frame again at the end."""
    if not loops.finished:
        return batch
    return torch.cat([torch.cat([loop, loop[:1]]) for loop in loops.split(batch)])


@dataclass(frozen=True)
class Rings:
    """The loops of a batch as a sampler gets them, and back.

    Attributes:
        sampled_frames: of each loop that the sampler holds, as in `loopanimate_core.closing.Closing`.
    """

    batch: LoopBatch
    sampled_frames: int

    def part(self, frames: Tensor | None, loop: int) -> Tensor | None:
        """What the sampler gets of one loop; what has not a row for each frame is for all loops."""
        if not torch.is_tensor(frames) or len(frames) != self.batch.loops * self.batch.rows:
            return frames
        own = self.batch.split(frames)[loop]
        return with_closing_frames(own, replace(self.batch, loops=1))[: self.sampled_frames]

    def whole(self, frames: Tensor) -> Tensor:
        """One loop from the sampler with as many frames as it had in the batch."""
        closed = torch.cat([frames, frames[: self.batch.frames - self.sampled_frames]])
        return closed[: self.batch.rows]
