"""Hashes that similar pictures share, and whether a clip comes back to its first frame."""

from __future__ import annotations

import cv2
import numpy as np

_STEPS = (
    1.5  # of the usual distance between neighbours: two frames that are as close follow each other
)
_LEAST_STEP = 1.0  # levels of 255; less is noise
_FAR = 2.5  # times that distance: how far a loop must have gone
_LOOP_PX = 48


def difference_hash(picture: np.ndarray) -> int:
    """64 bits of a picture [H, W, 3] (dHash): whether each of 8 x 8 places is darker than its right neighbour.

    Another size, compression or slightly other colours change few bits.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def loop_length(grey: np.ndarray, least: int = 8) -> int:
    """Frames after which a clip [n, H, W] is back at its first frame and goes on as it began; 0 if it never is.

    The last frame may also be the one before the first: then the whole clip is one round.
    """
    small = np.stack(
        [cv2.resize(p, (_LOOP_PX, _LOOP_PX), interpolation=cv2.INTER_AREA) for p in grey]
    ).astype(np.float32)
    if len(small) <= least:
        return 0
    steps = np.abs(np.diff(small, axis=0)).mean((1, 2))
    step = max(_LEAST_STEP, float(np.median(steps)), float(steps[0]))
    from_first = np.abs(small - small[0]).mean((1, 2))
    from_second = np.abs(small - small[1]).mean((1, 2))
    for length in range(least, len(small)):
        if from_first[:length].max() < _FAR * step:
            continue
        follows = length + 1 == len(small) or from_second[length + 1] <= _STEPS * step
        nearest = length + 1 == len(small) or from_first[length] <= from_first[length + 1]
        if from_first[length] <= _STEPS * step and follows and nearest:
            return (
                length if from_first[length] <= 0.5 * step else length + (length + 1 == len(small))
            )
    return 0
