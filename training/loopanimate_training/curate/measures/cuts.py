"""Cuts: neighbouring frames whose colours differ in distribution."""

from __future__ import annotations

import cv2
import numpy as np

_HSV_BINS, _HSV_RANGES = [16, 4, 4], [0, 180, 0, 256, 0, 256]
_PARTS, _GREY_BINS = (
    3,
    16,
)  # the picture in 3 x 3 parts, for cuts between pictures of the same colours


def colour_changes(frames: np.ndarray) -> np.ndarray:
    """How much the colours of each frame [n, H, W, 3] differ from those of the one before, [n-1] in 0..1.

    The larger of two numbers: the distance of their histograms in HSV, which is the share of the pixels that have
    other colours; and twice the sudden part of the distance of the brightness in 3 x 3 parts of the picture. Sudden is
    what exceeds both neighbours in time: a fast pan also changes everything, but not in a single step.
    """
    hsv = [cv2.cvtColor(frame, cv2.COLOR_RGB2HSV) for frame in frames]
    colours = np.stack([_shares(p, [0, 1, 2], _HSV_BINS, _HSV_RANGES) for p in hsv])
    parts = np.stack([_brightness_of_parts(picture[..., 2]) for picture in hsv])
    places = _distances(parts).mean(-1)
    around = np.pad(places, 1)
    sudden = np.maximum(places - np.maximum(around[:-2], around[2:]), 0.0)
    return np.clip(np.maximum(_distances(colours), 2.0 * sudden), 0.0, 1.0)


def cut_frames(changes: np.ndarray, limit: float) -> list[int]:
    """Numbers of the frames that begin a new shot; `changes` is the result of `colour_changes`."""
    return (np.flatnonzero(changes > limit) + 1).tolist()


def _distances(shares: np.ndarray) -> np.ndarray:
    """Half the sum of absolute differences of neighbours in [n, …, bins]: [n-1, …]."""
    return 0.5 * np.abs(np.diff(shares, axis=0)).sum(-1)


def _brightness_of_parts(picture: np.ndarray) -> np.ndarray:
    """[9, bins]; neighbouring bins are mixed, or a slight change of light would move whole areas to the next."""
    rows = np.array_split(picture, _PARTS, axis=0)
    parts = [part for row in rows for part in np.array_split(row, _PARTS, axis=1)]
    counts = [_shares(np.ascontiguousarray(p), [0], [_GREY_BINS], [0, 256]) for p in parts]
    return np.stack([np.convolve(one, (0.25, 0.5, 0.25), mode="same") for one in counts])


def _shares(
    picture: np.ndarray, channels: list[int], bins: list[int], ranges: list[int]
) -> np.ndarray:
    """Shares of the pixels per bin, flat."""
    counts = cv2.calcHist([picture], channels, None, bins, ranges).ravel()
    return counts / max(float(counts.sum()), 1.0)
