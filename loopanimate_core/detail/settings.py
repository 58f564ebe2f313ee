"""What a user chooses about detail transfer, checked before any work."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import LoopAnimateError

MODES = ("auto", "rigid", "elastic", "off")
MIN_SIDE_PX, MAX_SIDE_PX = 16, 8192
BAND = 0.12
MAX_FPS = 240.0
_BOXES = {"1080p": (1920, 1080), "4k": (3840, 2160)}
AT_MOST = "at most 1080p"
SIZES = ("original", "model", *_BOXES, AT_MOST)


@dataclass(frozen=True)
class DetailSettings:
    """How the still's own pixels are moved.

    Attributes:
        mode: `rigid` cuts the object out and fills what it uncovers; `elastic` bends the picture around
            the object, so that nothing is uncovered; `auto` takes `elastic` where the background
            is too busy to be filled in; `off` enlarges the frames as they are.
        residual: 0 … 1, how much of what motion cannot explain (a blink, light) is taken from the frames.
        band: 0 … 1, width of the bent zone in `elastic` mode over the longer side of the picture;
            it grows by itself where the motion is too large for it.
        size: `original` (the still's own), `model` (the frames'), `1080p` and `4k` (the still's shape,
            as large as fits into 1920 x 1080 or 3840 x 2160, upright or not), `at most 1080p` (the still's
            own, or 1080p if that is smaller), or `WIDTHxHEIGHT`, which crops the still evenly to that shape.
        fps: frames per second of the result; None keeps the frames there are.
        transparent: the object alone, as RGBA.

    Raises:
        LoopAnimateError: a value outside its range.
    """

    mode: str = "auto"
    residual: float = 0.0
    band: float = BAND
    size: str = "original"
    fps: float | None = None
    transparent: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise LoopAnimateError(f"mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        for name in ("residual", "band"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:  # also false for NaN
                raise LoopAnimateError(f"{name} must be between 0 and 1, got {value}")
        if self.fps is not None and not 0.0 < self.fps <= MAX_FPS:
            raise LoopAnimateError(f"fps must be above 0 and at most {MAX_FPS:g}, got {self.fps}")
        if self.transparent and self.mode in ("elastic", "off"):
            raise LoopAnimateError(
                f"transparent needs an object cut out of its background; mode {self.mode!r} has none"
            )
        if self.size not in SIZES:
            _parse_size(self.size)

    def output_size(self, still: tuple[int, int], frames: tuple[int, int]) -> tuple[int, int]:
        """(height_px, width_px) of the result, given those of the still and of the frames."""
        if self.size == "original":
            height, width = still
        elif self.size == "model":
            height, width = frames
        elif self.size in (*_BOXES, AT_MOST):
            long_px, short_px = _BOXES.get(self.size, _BOXES["1080p"])
            height, width = still
            scale = min(long_px / max(still), short_px / min(still))
            if self.size != AT_MOST or scale < 1:
                height, width = (max(2, 2 * round(side * scale / 2)) for side in (height, width))
        else:
            width, height = _parse_size(self.size)
        if max(height, width) > MAX_SIDE_PX:
            raise LoopAnimateError(
                f"the result would be {width} x {height} pixels; each side may be at most"
                f" {MAX_SIDE_PX}, choose another size"
            )
        return height, width


def frame_count(frames: int, frames_fps: float, fps: float | None) -> int:
    """How many frames play at `fps` when `frames` play at `frames_fps`; at least 1."""
    if not (math.isfinite(frames_fps) and frames_fps > 0.0):
        raise LoopAnimateError(f"the frames' own fps must be above 0, got {frames_fps}")
    return frames if fps is None else max(1, round(frames * fps / frames_fps))


def _parse_size(size: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})\s*[x×]\s*(\d{1,5})", str(size))
    if not match:
        raise LoopAnimateError(
            f"size must be one of {', '.join(SIZES)} or WIDTHxHEIGHT, got {size!r}"
        )
    width, height = int(match[1]), int(match[2])
    if not (MIN_SIDE_PX <= width <= MAX_SIDE_PX and MIN_SIDE_PX <= height <= MAX_SIDE_PX):
        raise LoopAnimateError(
            f"size must have sides of {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels, got {width} x {height}"
        )
    return width, height
