"""Measuring frames one by one, so that a video of any length takes the memory of a few frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import LoopAnimateError
from . import measures

MAX_COARSE = 1280
"""Frames that are kept, shrunk. Of a longer clip: those that play before and after the seam, half each."""
_EMBEDDED = 8  # at a time

ImageEncoder = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Measured:
    """What is known of a clip of P frames after all of them went by.

    Attributes:
        frames: P.
        first: frame 0, `[H, W, 3]`.
        steps: `[P]` at full size; the last value is the seam.
        coarse: `[K, h, w, 3]`, the frames shrunk to 64 px; K = P up to `MAX_COARSE`.
        colours: `[P, 3]`, mean colours, L*a*b*.
        max_distance: largest distance to frame 0.
        ssim: mean SSIM of neighbours.
        embeddings: `[P, D]` of length 1, None without an encoder.
    """

    frames: int
    first: torch.Tensor
    steps: torch.Tensor
    coarse: torch.Tensor
    colours: torch.Tensor
    max_distance: float
    ssim: float
    embeddings: torch.Tensor | None


class FrameMeter:
    """Takes the frames `[H, W, 3]` of a clip in 0..1, all of one size, in the order in which they play.

    Args:
        image_encoder: pictures `[N, H, W, 3]` to embeddings `[N, D]`; None measures no CLIP scores.
    """

    def __init__(self, image_encoder: ImageEncoder | None = None) -> None:
        self._encoder = image_encoder
        self._first: torch.Tensor | None = None
        self._last: torch.Tensor | None = None
        self._steps: list[torch.Tensor] = []
        self._furthest: torch.Tensor | None = None
        self._ssim = measures.NeighbourSsim()
        self._head: list[torch.Tensor] = []
        self._tail: deque[torch.Tensor] = deque(maxlen=MAX_COARSE // 2)
        self._colours: list[torch.Tensor] = []
        self._batch: list[torch.Tensor] = []
        self._embeddings: list[torch.Tensor] = []

    def add(self, frame: torch.Tensor) -> None:
        """Measure the next frame.

        Raises:
            LoopAnimateError: it has NaN or infinite values.
        """
        if not bool(torch.stack(frame.aminmax()).isfinite().all()):  # NaN is both, if there is one
            raise LoopAnimateError("frames must be in 0..1, got NaN or infinite values")
        if self._first is None or self._last is None or self._furthest is None:
            self._first, self._furthest = frame, measures.distance(frame, frame)
        else:
            self._steps.append(measures.distance(self._last, frame))
            distance = measures.distance(frame, self._first)
            self._furthest = torch.maximum(self._furthest, distance)
        self._last = frame
        self._ssim.add(frame)
        coarse = measures.shrink(frame[None], measures.COARSE_PX)
        self._colours.append(measures.mean_colours(coarse))
        self._keep(coarse)
        if self._encoder is not None:
            self._batch.append(frame)
            if len(self._batch) == _EMBEDDED:
                self._embed()

    def _keep(self, coarse: torch.Tensor) -> None:
        count = len(self._colours)
        if count <= MAX_COARSE:
            self._head.append(coarse)
            return
        if count == MAX_COARSE + 1:
            self._tail.extend(self._head[MAX_COARSE // 2 :])
            del self._head[MAX_COARSE // 2 :]
        self._tail.append(coarse)

    def _embed(self) -> None:
        assert self._encoder is not None
        self._embeddings.append(embed(self._encoder, torch.stack(self._batch)))
        self._batch.clear()

    def finish(self) -> Measured:
        """The measurements, with the step from the last frame to the first."""
        assert self._first is not None and self._last is not None and self._furthest is not None
        seam = measures.distance(self._last, self._first)
        if self._batch:
            self._embed()
        return Measured(
            frames=len(self._colours),
            first=self._first,
            steps=torch.stack([*self._steps, seam]),
            coarse=torch.cat([*self._head, *self._tail]),
            colours=torch.cat(self._colours),
            max_distance=float(self._furthest),
            ssim=self._ssim.mean(),
            embeddings=torch.cat(self._embeddings) if self._embeddings else None,
        )


def embed(encoder: ImageEncoder, pictures: torch.Tensor) -> torch.Tensor:
    """Embeddings of length 1, `[N, D]`."""
    return F.normalize(encoder(pictures).float(), dim=-1)
