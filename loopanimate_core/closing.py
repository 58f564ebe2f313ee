"""How a loop is closed: which frames the network sees at a step, as windows on the ring of frames.

The sampler holds the P frames that play, and the network sees windows of them. Where a frame is seen
more than once, its predictions are averaged. So no sampler, ancestral or not, can tear the loop open.

tie      one window of F = P+1 frames, the first frame again at the end: closed by construction.
shift    as tie, but the window starts at another frame at each of the first steps, so no place of the
         loop stays at the border of the temporal attention.
windows  circular windows of the length the network knows: loops of any length in constant memory.
off      F frames, nothing tied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import LoopAnimateError

CLOSINGS = ("tie", "shift", "windows", "off")


@dataclass(frozen=True)
class Window:
    """Frames `indices [L]` of the sampled clip at positions 0 … L-1, and how much each one counts."""

    indices: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Closing:
    """A way to close loops of `frames` = F frames with a network that sees `window_frames` at once.

    Attributes:
        shift_until: share of the steps after which `shift` stands still.
        overlap: share of a window that it has in common with the next one.
    """

    name: str
    frames: int
    window_frames: int
    shift_until: float = 0.6
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.name not in CLOSINGS:
            raise LoopAnimateError(f"closing is {self.name!r}; choose one of {', '.join(CLOSINGS)}")
        if self.name != "windows" and self.frames > self.window_frames:
            raise LoopAnimateError(
                f"{self.frames} frames are more than the {self.window_frames} that this model sees at once; "
                "use closing 'windows', or chain several loops"
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
