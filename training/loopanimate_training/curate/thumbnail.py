"""The first and the turning frame of a clip side by side, with the object marked."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

_HEIGHT_PX = 120
_OUTLINE = (255, 90, 50)


def draw(frames: np.ndarray, masks: np.ndarray) -> bytes:
    """A JPEG of frames [2, H, W, 3] uint8, dark outside the masks [2, H, W] bool, with their outlines."""
    height, width = frames.shape[1:3]
    size = max(1, round(width * _HEIGHT_PX / height)), _HEIGHT_PX
    panels = [_marked(frame, mask, size) for frame, mask in zip(frames, masks, strict=True)]
    gap = np.full((_HEIGHT_PX, 4, 3), 255, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.hstack([panels[0], gap, panels[1]])).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _marked(frame: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    picture[small == 0] = picture[small == 0] // 2
    outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, _OUTLINE, 1)
    return picture
