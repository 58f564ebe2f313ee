"""Whether the object stays in the clip: optical flow carries its mask from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

_BINS = 6  # per channel of the colours that are compared


@dataclass(frozen=True)
class Track:
    """What became of an object.

    Attributes:
        masks: [n, H, W] bool, where flow carries it.
        presence: [n], how much of it is left in each frame: its area (at most 1) times the overlap of its colours
            with those it had at first.
        background_motion: median motion outside the object per step, as a share of the picture's diagonal.
        object_motion: mean motion inside the object against that of the background, likewise.
        other_motion: mean motion outside the object against that of the background, likewise.
    """

    masks: np.ndarray
    presence: np.ndarray
    background_motion: float
    object_motion: float
    other_motion: float


def backward_flows(grey: np.ndarray) -> list[np.ndarray]:
    """OpenCV's DIS flow of pictures [n, H, W]: n-1 fields [H, W, 2], in pixels from each to the one before it."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    return [flow.calc(after, before, None) for before, after in pairwise(grey)]  # type: ignore[call-overload]


def follow(frames: np.ndarray, mask: np.ndarray, flows: Sequence[np.ndarray]) -> Track:
    """Carry `mask` [H, W] bool of the first frame through frames [n, H, W, 3] by their `backward_flows`.

    Errors add up: after hundreds of frames the outline is rough, which is why areas and colours are compared
    and not outlines.
    """
    height, width = mask.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    soft, masks, motions = mask.astype(np.float32), [mask], []
    for back in flows:
        places = x + back[..., 0], y + back[..., 1]
        soft = cv2.remap(soft, *places, cv2.INTER_LINEAR, borderValue=0.0)
        found = soft > 0.5
        masks.append(found)
        if found.any() and not found.all():
            behind = np.median(back[~found], axis=0)
            against = np.hypot(back[..., 0] - behind[0], back[..., 1] - behind[1])
            motions.append((np.linalg.norm(behind), against[found].mean(), against[~found].mean()))
    means = np.mean(motions or [(0.0, 0.0, 0.0)], axis=0) / np.hypot(height, width)
    return Track(np.stack(masks), _presence(frames, masks), *means.tolist())


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks; 1 if both are empty."""
    union = float((one | other).sum())
    return float((one & other).sum()) / union if union else 1.0


def _presence(frames: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
    area, colours = max(float(masks[0].sum()), 1.0), _colours(frames[0], masks[0])
    left = []
    for frame, mask in zip(frames, masks, strict=True):
        overlap = float(np.minimum(_colours(frame, mask), colours).sum())
        left.append(min(1.0, float(mask.sum()) / area) * overlap)
    return np.array(left)


def _colours(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Shares of the masked pixels per colour in CIELAB; zeros for an empty mask."""
    lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)
    counts = cv2.calcHist([lab], [0, 1, 2], mask.astype(np.uint8), [_BINS] * 3, [0, 256] * 3)
    return counts.ravel() / max(float(counts.sum()), 1.0)
