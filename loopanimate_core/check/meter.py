"""Measuring frames one by one, so that a video of any length takes the memory of a few frames."""

from __future__ import annotations

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
        ssim: mean SSIM of neighbours, of the first `MAX_COARSE` frames: it takes half of the time of all measurements.
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
    """Takes the frames `[H, W, 3]` of a clip, all of one size, in the order in which they play.

    They are in 0..1, or uint8, which takes a quarter of the memory.

    Args:
        image_encoder: pictures `[N, H, W, 3]` to embeddings `[N, D]`; None measures no CLIP scores.
    """

    def __init__(self, image_encoder: ImageEncoder | None = None) -> None:
        self._encoder = image_encoder
        self._first: torch.Tensor | None = None
        self._last: torch.Tensor | None = None
        self._coarse: torch.Tensor | None = None
        self._steps: list[float] = []  # numbers: a tensor for each frame of an hour takes 100 MB
        self._furthest = 0.0
        self._ssim = measures.NeighbourSsim()
        self._colours: list[list[float]] = []
        self._batch: list[torch.Tensor] = []
        self._embeddings: list[torch.Tensor] = []

    def add(self, frame: torch.Tensor) -> None:
        """Measure the next frame.

        What outlasts the frame is kept in memory that is reserved once. Small blocks that stay, between large
        ones that come and go, would take 30 MB more of the heap with every frame of 1920 x 1080.

        Raises:
            LoopAnimateError: it has NaN or infinite values.
        """
        # NaN is both the least and the greatest, if there is one.
        if frame.is_floating_point() and not bool(torch.stack(frame.aminmax()).isfinite().all()):
            raise LoopAnimateError("frames must be in 0..1, got NaN or infinite values")
        coarse = measures.shrink(frame[None], measures.COARSE_PX)
        if self._first is None or self._last is None or self._coarse is None:
            self._first, self._last = frame.clone(), frame.clone()
            self._coarse = coarse.new_empty(MAX_COARSE, *coarse.shape[1:])
        else:
            self._steps.append(float(measures.distance(self._last, frame)))
            self._furthest = max(self._furthest, float(measures.distance(frame, self._first)))
            self._last.copy_(frame)
        if len(self._colours) < MAX_COARSE:
            self._ssim.add(frame)
        self._coarse[_slot(len(self._colours))] = coarse[0]
        self._colours.append(measures.mean_colours(coarse)[0].tolist())
        if self._encoder is not None:
            self._batch.append(measures.as_float(frame))
            if len(self._batch) == _EMBEDDED:
                self._embed()

    def _embed(self) -> None:
        assert self._encoder is not None
        self._embeddings.append(embed(self._encoder, torch.stack(self._batch)))
        self._batch.clear()

    def finish(self) -> Measured:
        """The measurements, with the step from the last frame to the first."""
        assert self._first is not None and self._last is not None and self._coarse is not None
        seam = float(measures.distance(self._last, self._first))
        if self._batch:
            self._embed()
        count, half = len(self._colours), MAX_COARSE // 2
        kept = range(count) if count <= MAX_COARSE else [*range(half), *range(count - half, count)]
        return Measured(
            frames=count,
            first=measures.as_float(self._first),
            steps=self._first.new_tensor([*self._steps, seam], dtype=torch.float32),
            coarse=self._coarse[[_slot(index) for index in kept]],
            colours=self._first.new_tensor(self._colours, dtype=torch.float32),
            max_distance=self._furthest,
            ssim=self._ssim.mean(),
            embeddings=torch.cat(self._embeddings) if self._embeddings else None,
        )


def _slot(index: int) -> int:
    """Where a shrunk frame is kept: the first half stays, the second is overwritten around and around."""
    half = MAX_COARSE // 2
    return index if index < half else half + (index - half) % half


def embed(encoder: ImageEncoder, pictures: torch.Tensor) -> torch.Tensor:
    """Embeddings of length 1, `[N, D]`."""
    return F.normalize(encoder(pictures).float(), dim=-1)
