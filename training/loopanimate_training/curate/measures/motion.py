"""How much a clip moves, how steadily the camera does, and what rests on top of it."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

_NOISE = 12  # levels of 255: changes below are noise and compression
_EDGE = 6.0  # levels per pixel
_RESTS = 0.85  # |mean gradient| / mean |gradient| of an edge that neither moves nor changes
_MOVES = 0.7
_EVERY, _STEP_PX, _LEAST_FRAMES = 3, 4.0, 12


def to_grey(frames: np.ndarray) -> np.ndarray:
    """[n, H, W] uint8 of frames [n, H, W, 3]."""
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def moving_share(grey: np.ndarray, stride: int) -> float:
    """Mean share of the pixels that change visibly within `stride` frames; 0 for a still. `grey` is [n, H, W]."""
    picked = grey[::stride] if len(grey) > stride else grey[[0, -1]]
    soft = np.stack([cv2.GaussianBlur(picture, (3, 3), 0) for picture in picked]).astype(np.int16)
    return float((np.abs(np.diff(soft, axis=0)) > _NOISE).mean())


def camera_shifts(grey: np.ndarray) -> np.ndarray:
    """Translation (x, y) of the whole picture from frame to frame, [n-1, 2] in pixels, by phase correlation.

    It follows what fills most of the picture: usually the background, sometimes a large object.
    """
    height, width = grey.shape[1:]
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    pictures = (
        grey * window
    )  # once: phaseCorrelate multiplies in place where it is given the window
    shifts = [cv2.phaseCorrelate(before, after)[0] for before, after in pairwise(pictures)]
    return np.array(shifts, np.float64).reshape(-1, 2)


def shake(shifts: np.ndarray, longer_side_px: int) -> float:
    """Mean change of the camera's speed from frame to frame, as a share of the longer side.

    A steady pan has none, and neither has a tripod. The largest tenth is left out: it is cuts and flashes.
    """
    if len(shifts) < 2:
        return 0.0
    jerks = np.sort(np.linalg.norm(np.diff(shifts, axis=0), axis=1))
    return float(jerks[: max(1, int(0.9 * len(jerks)))].mean() / longer_side_px)


def resting_edges(grey: np.ndarray) -> float:
    """Share of the edges that stay where they are while the picture moves: text, logos, borders. `grey` is [n, H, W].

    Only frames between which half of the picture has moved count, at least twelve, and half of the edges must have moved
    too: otherwise the result is 0. That is the weakness of this measure: text over a still scene cannot be told from a sign in it, nor moving text
    from an object.
    """
    fields = np.stack([_gradients(picture) for picture in _after_moves(grey)])  # [n, 2, H, W]
    size = np.linalg.norm(fields, axis=1).mean(0)
    edges = size > _EDGE
    if len(fields) < _LEAST_FRAMES or not edges.any():
        return 0.0
    steadiness = (np.linalg.norm(fields.mean(0), axis=0) / np.maximum(size, 1e-6))[edges]
    # Flow may say that a smooth background moves with the object before it; its edges do not.
    if (steadiness < _MOVES).mean() < 0.5:
        return 0.0
    return float((steadiness > _RESTS).mean())


def _after_moves(grey: np.ndarray) -> list[np.ndarray]:
    """Frames [H, W]: the first, and those until which half of the picture has moved since the one before."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    picked = [grey[0]]
    for picture in grey[_EVERY::_EVERY]:
        field = flow.calc(picked[-1], picture, None)  # type: ignore[call-overload]
        if np.median(np.hypot(field[..., 0], field[..., 1])) >= _STEP_PX:
            picked.append(picture)
    return picked


def _gradients(picture: np.ndarray) -> np.ndarray:
    """[2, H, W] in levels per pixel, slightly blurred."""
    soft = cv2.GaussianBlur(picture, (3, 3), 0)
    return np.stack(
        [cv2.Sobel(soft, cv2.CV_32F, *order, scale=0.125) for order in ((1, 0), (0, 1))]
    )
