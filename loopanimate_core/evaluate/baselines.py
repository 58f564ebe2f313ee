"""What a loop has to be better than: four ways to get one without a model that loops.

All take and return frames `[P, H, W, 3]` that play.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..check import MIN_FRAMES
from ..check.measures import COARSE_PX, distance_matrix, shrink
from ..errors import LoopAnimateError

FADE_SHARE = 0.25  # of the clip
SHORTEST_CUT = 0.5  # of the clip: the shorter a piece, the better it closes, and the less it shows


def still(frames: Tensor) -> Tensor:
    """The first frame, as often as there are frames: perfect in every score that ignores motion."""
    return frames[:1].expand_as(frames).contiguous()


def ping_pong(frames: Tensor) -> Tensor:
    """Forwards, then backwards without the two ends again: `2 P - 2` frames."""
    return torch.cat([frames, frames[1:-1].flip(0)])


def crossfade(frames: Tensor) -> Tensor:
    """The clip with its last quarter faded into its first frames, so that it ends where it began.

    Of P frames P - k play. The first k are blends: frame 0 is almost the one that follows the last frame that plays.
    """
    count = max(1, round(FADE_SHARE * len(frames)))
    body = frames[: len(frames) - count].clone()
    count = min(count, len(body))
    tail = frames[len(body) : len(body) + count]
    weight = (torch.arange(1, count + 1).to(frames) / (count + 1)).view(-1, 1, 1, 1)
    body[:count] = weight * body[:count] + (1 - weight) * tail
    return body


def best_cut(frames: Tensor) -> Tensor:
    """The piece of the clip, at least half as long, whose end leads best into its beginning.

    Frames i … j-1 play if frame j is the most like frame i: then the step from j-1 to i is most like the one
    from j-1 to j, which the clip itself has. The clip as it is, is not among them: what follows its end is unknown.
    """
    matrix = distance_matrix(shrink(frames, COARSE_PX))
    start, end = torch.meshgrid(*[torch.arange(len(frames))] * 2, indexing="ij")
    legal = end - start >= max(MIN_FRAMES, round(SHORTEST_CUT * len(frames)))
    best = int(matrix.masked_fill(~legal, torch.inf).argmin())
    first, after = divmod(best, len(frames))
    return frames[first:after].contiguous()


BASELINES: dict[str, Callable[[Tensor], Tensor]] = {
    "still": still,
    "ping-pong": ping_pong,
    "crossfade": crossfade,
    "best-cut": best_cut,
}


def apply_baseline(name: str, frames: Tensor) -> Tensor:
    """The baseline of this name.

    Raises:
        LoopAnimateError: the clip is too short for it.
    """
    if name != "still" and len(frames) < 2 * MIN_FRAMES:
        raise LoopAnimateError(
            f"the baseline {name} needs at least {2 * MIN_FRAMES} frames, got {len(frames)}"
        )
    return BASELINES[name](frames)
