"""How a loop is closed: the sampler holds the P frames that play, the network sees windows of them.

Where a frame is seen more than once, its predictions are averaged. So no sampler, ancestral or not, can
open the loop again.

tie      one window of F = P+1 frames, the first frame again at the end: closed by construction.
shift    like tie, but at each of the first steps the window starts at another frame, so that no frame
         stays at the border of the temporal attention.
windows  overlapping windows of the length the network knows: loops of any length in constant memory.
off      F frames, nothing tied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from .conditions import check_frames
from .errors import LoopAnimateError

CLOSINGS = ("tie", "shift", "windows", "off")

Denoiser = Callable[[Tensor, Tensor, int], Tensor]
"""`(z_t [1, 4, P, h, w], timestep, step) -> prediction [1, 4, P, h, w]`: all frames of the sampler."""

WindowDenoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(z_t [1, 4, L, h, w], timestep, frames [L]) -> prediction [1, 4, L, h, w]`: some frames of the loop, by index."""


@dataclass(frozen=True)
class Window:
    """Frames `indices [L]` of the sampled clip at positions 0 … L-1, and the weight `[L]` of each one."""

    indices: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Closing:
    """A way to close loops of `frames` = F frames with a network that sees `window_frames` at once.

    Attributes:
        shift_until: share of the steps after which `shift` stays at the first frame.
        overlap: share of a window that the next one overlaps.

    Raises:
        LoopAnimateError: an unknown name, or more frames than the network sees at once.
    """

    name: str
    frames: int
    window_frames: int
    shift_until: float = 0.6
    overlap: float = 0.25

    def __post_init__(self) -> None:
        check_closing(self.name)
        check_frames(self.frames)
        if self.name != "windows" and self.frames > self.window_frames:
            raise LoopAnimateError(
                f"frames must be at most {self.window_frames}, which this model sees at once, got {self.frames};"
                " use closing 'windows' or join several loops for more"
            )

    @property
    def sampled_frames(self) -> int:
        """Frames that the sampler holds: P = F-1 on a ring, F when nothing is tied."""
        return self.frames if self.name == "off" else self.frames - 1

    def windows(self, step: int, steps: int) -> list[Window]:
        """The windows of this step; together they cover every sampled frame."""
        ring = self.sampled_frames
        if self.name == "off":
            return [_even(torch.arange(ring))]
        if self.name == "windows" and ring >= self.window_frames:
            return self._circular_windows(step, ring)
        start = _stride_coprime_with(ring) * step if self._shifts(step, steps) else 0
        return [_even((start + torch.arange(ring + 1)) % ring)]

    def _shifts(self, step: int, steps: int) -> bool:
        return self.name == "shift" and step < self.shift_until * steps

    def _circular_windows(self, step: int, ring: int) -> list[Window]:
        """The same number of windows at every step, starting elsewhere each time, with soft borders."""
        length = self.window_frames
        count = math.ceil(ring / max(1, round(length * (1 - self.overlap))))
        first = int(ring * bit_reversed(step))
        weights = torch.hann_window(length, periodic=False) + 0.05
        starts = [first + round(i * ring / count) for i in range(count)]
        return [Window((start + torch.arange(length)) % ring, weights) for start in starts]


def closed(denoise: WindowDenoiser, closing: Closing, steps: int) -> Denoiser:
    """A denoiser of the P frames that the sampler holds, from one of the windows that the network sees."""

    def denoise_ring(z_t: Tensor, timestep: Tensor, step: int) -> Tensor:
        windows = closing.windows(step, steps)
        predictions = (
            denoise(z_t[:, :, frames], timestep, frames)
            for frames in (window.indices.to(z_t.device) for window in windows)
        )
        return blend(predictions, windows, closing.sampled_frames)

    return denoise_ring


def blend(predictions: Iterable[Tensor], windows: Sequence[Window], frames: int) -> Tensor:
    """The weighted mean of each frame's predictions.

    Args:
        predictions: one `[N, 4, L, h, w]` for each window; a generator keeps one in memory at a time.
        windows: together they show every frame.
        frames: P, the frames of the sampled clip.

    Returns:
        `[N, 4, P, h, w]`.
    """
    weight = torch.zeros(frames)
    for window in windows:
        weight.index_add_(0, window.indices, window.weights)

    def share(window: Window, prediction: Tensor) -> Tensor:
        shares = window.weights / weight[window.indices]
        weighted = prediction * shares.to(prediction)[:, None, None]
        clip = prediction.new_zeros(*prediction.shape[:2], frames, *prediction.shape[3:])
        return clip.index_add_(2, window.indices.to(clip.device), weighted)

    return reduce(torch.add, map(share, windows, predictions))


def check_closing(name: str) -> None:
    """Raises LoopAnimateError for a name that is not in `CLOSINGS`."""
    if name not in CLOSINGS:
        raise LoopAnimateError(f"closing must be one of {', '.join(CLOSINGS)}, got {name!r}")


def bit_reversed(step: int) -> float:
    """van der Corput's sequence in [0, 1): 0, 1/2, 1/4, 3/4, 1/8, …"""
    bits = f"{step:b}"
    return int(bits[::-1], 2) / 2 ** len(bits)


def _stride_coprime_with(ring: int) -> int:
    """A stride near the golden section of the ring that visits all of its frames."""
    stride = max(1, round(ring * 0.382))
    while math.gcd(stride, ring) != 1:
        stride += 1
    return stride


def _even(indices: Tensor) -> Window:
    return Window(indices, torch.ones(len(indices)))
