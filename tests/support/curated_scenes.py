"""Drawn clips whose scores are known: a disc that moves in front of a picture, with and without a moving camera."""

from __future__ import annotations

import cv2
import numpy as np

HEIGHT_PX, WIDTH_PX = 108, 192


def backdrop(
    seed: int = 0, height_px: int = 200, width_px: int = 600, sharp: bool = False
) -> np.ndarray:
    """[H, W, 3] uint8: soft coloured noise, or with `sharp` tiles with edges."""
    rng = np.random.default_rng(seed)
    if not sharp:
        small = rng.integers(60, 140, (height_px // 12, width_px // 12, 3), dtype=np.uint8)
        return cv2.resize(small, (width_px, height_px), interpolation=cv2.INTER_CUBIC)
    small = rng.integers(40, 160, (height_px // 10, width_px // 10, 3), dtype=np.uint8)
    tiles = cv2.resize(small, (width_px, height_px), interpolation=cv2.INTER_NEAREST)
    return cv2.GaussianBlur(tiles, (5, 5), 0)


def scene(
    frames: int,
    *,
    speed_px: float = 1.0,
    pan_px: float = 0.0,
    seed: int = 0,
    colour: tuple[int, int, int] = (250, 210, 40),
    gone_from: int | None = None,
    sharp: bool = False,
) -> np.ndarray:
    """[frames, H, W, 3] uint8 of a disc that swings sideways; the camera pans by `pan_px` a frame.

    Args:
        gone_from: the frame from which the disc is no longer there.
    """
    picture, drawn = backdrop(seed, sharp=sharp), []
    for number in range(frames):
        left = 100 + round(pan_px * number) % 300
        frame = np.ascontiguousarray(picture[40 : 40 + HEIGHT_PX, left : left + WIDTH_PX])
        if gone_from is None or number < gone_from:
            centre = disc_centre(number, speed_px)
            cv2.circle(frame, centre, 24, colour, -1, cv2.LINE_AA)
            cv2.circle(frame, (centre[0] + 8, centre[1] - 8), 6, (40, 30, 90), -1, cv2.LINE_AA)
        drawn.append(frame)
    return np.stack(drawn)


def disc_centre(number: int, speed_px: float) -> tuple[int, int]:
    """Where the disc is in a frame: it swings around the middle by 30 pixels."""
    return round(WIDTH_PX / 2 + 30 * float(np.sin(speed_px * number / 30))), HEIGHT_PX // 2


def disc_mask(number: int = 0, speed_px: float = 1.0) -> np.ndarray:
    """[H, W] bool of the disc."""
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    centre = disc_centre(number, speed_px)
    return np.hypot(x - centre[0], y - centre[1]) <= 24
