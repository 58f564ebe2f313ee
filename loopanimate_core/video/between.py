"""Frames between the frames of a loop, also between the last one and the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import LoopAnimateError
from ..extras import require_module
from ..picture.images import require_frames

METHODS = ("motion", "blend")
MAX_TIMES = 8
FLOW_PX = (256, 640)  # the longer side on which motion is measured: least and most


def interpolate_loop(
    frames: Tensor,
    times: int,
    method: str = "motion",
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """A loop with `times` as many frames, evenly round the ring; the frames that were there stay as they are.

    Args:
        frames: `[P, H, W, 3]` in 0..1, the frames that play.
        times: 2 … 8.
        method: `motion` moves pixels along the optical flow between two frames; `blend` only fades.
        progress: called with the number of frames that are finished.

    Returns:
        `[P * times, H, W, 3]`.

    Raises:
        LoopAnimateError: a setting out of its range, fewer than 2 frames, or `motion` without OpenCV.
    """
    if not 2 <= times <= MAX_TIMES:
        raise LoopAnimateError(f"times must be between 2 and {MAX_TIMES}, got {times}")
    if method not in METHODS:
        raise LoopAnimateError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if len(require_frames(frames)) < 2:
        raise LoopAnimateError("a loop to interpolate must have at least 2 frames, got 1 frame")
    between = _FlowBetween().frames if method == "motion" else _faded
    found = frames.new_empty(len(frames) * times, *frames.shape[1:])
    for index in range(len(frames)):
        here, there = frames[index], frames[(index + 1) % len(frames)]
        at = index * times
        found[at] = here
        found[at + 1 : at + times] = between(here, there, times)
        if progress is not None:
            progress(at + times)
    return found


def _faded(here: Tensor, there: Tensor, times: int) -> Tensor:
    """The `times - 1` frames between two, `[times - 1, H, W, 3]`."""
    shares = torch.arange(1, times).to(here)[:, None, None, None] / times
    return here + shares * (there - here)


class _FlowBetween:
    """Frames between two along their optical flow (OpenCV's DIS), in both directions.

    At the time t both flows are taken to the new frame by the linear approximation of Super SloMo
    (arXiv 1712.00080, Eq. 3), and both frames are moved there and faded. Where the moved frames agree less than
    the frames themselves, the flow is wrong, and they are only faded.
    """

    def __init__(self) -> None:
        self.cv2 = require_module("cv2", "interpolation by motion")
        self.flow = self.cv2.DISOpticalFlow_create(self.cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.flow.setFinestScale(0)

    def frames(self, here: Tensor, there: Tensor, times: int) -> Tensor:
        first, last = (np.ascontiguousarray(f.float().cpu().numpy()) for f in (here, there))
        forth, back = self._flows(first, last)
        apart = self._blurred(np.abs(first - last).mean(-1))
        found = []
        for step in range(1, times):
            t = step / times
            from_first = self._moved(first, -(1 - t) * t * forth + t * t * back)
            from_last = self._moved(last, (1 - t) ** 2 * forth - t * (1 - t) * back)
            moved = (1 - t) * from_first + t * from_last
            faded = (1 - t) * first + t * last
            wrong = self._blurred(np.abs(from_first - from_last).mean(-1))
            trust = np.clip(2 - wrong / (apart + 1e-3), 0, 1)[
                ..., None
            ]  # 0 from twice as far apart
            found.append(trust * moved + (1 - trust) * faded)
        return torch.from_numpy(np.stack(found)).to(here).clamp(0, 1)

    def _flows(self, first: Any, last: Any) -> tuple[Any, Any]:
        """Displacements `[H, W, 2]` in pixels, from the first frame to the last and back."""
        height, width = first.shape[:2]
        least, most = FLOW_PX
        scale = min(max(1.0, least / max(height, width)), most / max(height, width))
        size = max(16, round(width * scale)), max(16, round(height * scale))
        grey = [
            self.cv2.resize(
                self.cv2.cvtColor(
                    (frame * 255).round().clip(0, 255).astype(np.uint8), self.cv2.COLOR_RGB2GRAY
                ),
                size,
                interpolation=self.cv2.INTER_AREA if scale < 1 else self.cv2.INTER_CUBIC,
            )
            for frame in (first, last)
        ]
        per_pixel = np.array([width / size[0], height / size[1]], np.float32)
        flows = (self.flow.calc(*pair, None) for pair in (grey, grey[::-1]))
        forth, back = (self.cv2.resize(flow, (width, height)) * per_pixel for flow in flows)
        return forth, back

    def _moved(self, frame: Any, displacement: Any) -> Any:
        height, width = frame.shape[:2]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        places = (x + displacement[..., 0], y + displacement[..., 1])
        border = self.cv2.BORDER_REPLICATE
        return self.cv2.remap(frame, *places, self.cv2.INTER_LINEAR, borderMode=border)

    def _blurred(self, plane: Any) -> Any:
        return self.cv2.GaussianBlur(plane, (0, 0), 2.0)
