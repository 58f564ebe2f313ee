"""What lies behind the object: the background carried on into the hole that it leaves."""

from __future__ import annotations

import cv2
import numpy as np

SMOOTH_PX = 384  # the smooth part is solved at no more than this many pixels along the longer side
TEXTURE_SHARE = 0.02  # of the longer side: what varies within less is texture
_FADE_SHARE = 0.1  # of the longer side: how deep texture reaches in full
_SWEEPS = 24  # of relaxation a level
_SMALLEST_PX = 4
_POINTS = 1 << 19  # pixels filled at a time


def fill_hole(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """[H, W, 3] with the pixels of `hole` [H, W] (bool) replaced by what surrounds them.

    The colours solve Laplace's equation with the hole's surroundings as its border, which carries plain colours
    and gradients on exactly; texture is mirrored at the hole's edge, so that the rim that a moving
    object uncovers looks like what lies beside it. All other pixels stay as they are.
    """
    filled = picture.copy()
    if not hole.any() or hole.all():
        return filled
    longer = max(hole.shape)
    smooth, weight = shrink(picture, (~hole).astype(np.float32), SMOOTH_PX)
    base = _harmonic(smooth, weight < 0.5)
    trusted = (weight >= 0.5).astype(np.float32)
    sigma = max(1.0, TEXTURE_SHARE * max(weight.shape))
    low = _blur(base * trusted[..., None], sigma)
    low /= np.maximum(_blur(trusted, sigma), 1e-4)[..., None]
    rows, columns, from_rows, from_columns, depth = _mirrored(hole)
    for start in range(0, len(rows), _POINTS):
        at = slice(start, start + _POINTS)
        row, column, from_row, from_column = (
            index[at] for index in (rows, columns, from_rows, from_columns)
        )
        texture = picture[from_row, from_column] - _enlarged(low, hole.shape, from_row, from_column)
        texture[hole[from_row, from_column]] = 0.0
        strength = np.clip(2.0 - depth[at] / (_FADE_SHARE * longer), 0.0, 1.0)
        colour = _enlarged(base, hole.shape, row, column) + strength[:, None] * texture
        filled[row, column] = np.clip(colour, 0.0, 1.0)
    return filled


def shrink(picture: np.ndarray, weight: np.ndarray, long_px: int) -> tuple[np.ndarray, np.ndarray]:
    """[h, w, C] weighted means, at most `long_px` along the longer side, and their mean weight [h, w]."""
    height, width = weight.shape
    scale = min(1.0, long_px / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    total = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    sums = cv2.resize(picture * weight[..., None], size, interpolation=cv2.INTER_AREA)
    return sums / np.maximum(total, 1e-6)[..., None], total


def _mirrored(hole: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows and columns of the hole, of their mirror images across its edge, and their depth in pixels."""
    depth, labels = cv2.distanceTransformWithLabels(
        hole.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = np.asarray(labels, np.int32)
    edge = np.flatnonzero(~hole).astype(np.int32)
    place = np.zeros(int(labels.max()) + 1, np.int32)
    place[labels.ravel()[edge]] = edge
    rows, columns = (index.astype(np.int32) for index in np.nonzero(hole))
    nearest = place[labels[rows, columns]]
    edge_rows, edge_columns = nearest // hole.shape[1], nearest % hole.shape[1]
    from_rows = np.clip(2 * edge_rows - rows, 0, hole.shape[0] - 1)
    from_columns = np.clip(2 * edge_columns - columns, 0, hole.shape[1] - 1)
    return rows, columns, from_rows, from_columns, depth[rows, columns]


def _enlarged(
    small: np.ndarray, size: tuple[int, int], rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """[N, C]: what `small`, enlarged to `size` linearly, shows at rows and columns [N]."""
    (top, bottom, down), (left, right, along) = (
        _between(index, full, part)
        for index, full, part in zip((rows, columns), size, small.shape[:2], strict=True)
    )
    above = small[top, left] + along * (small[top, right] - small[top, left])
    below = small[bottom, left] + along * (small[bottom, right] - small[bottom, left])
    return above + down * (below - above)


def _between(index: np.ndarray, full: int, part: int) -> tuple[np.ndarray, ...]:
    """The two entries of a line of `part` pixels around each index on one of `full`, and how far between."""
    place = np.clip((index + 0.5) * (part / full) - 0.5, 0.0, part - 1.0).astype(np.float32)
    before = place.astype(np.int32)
    return before, np.minimum(before + 1, part - 1), (place - before)[:, None]


def _harmonic(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Solve Laplace's equation in the hole, coarse to fine; outside the picture stays."""
    if not hole.any() or hole.all():
        return picture
    known = (~hole).astype(np.float32)
    if min(hole.shape) <= _SMALLEST_PX:
        guess = (picture * known[..., None]).sum((0, 1)) / known.sum()
    else:
        coarse, weight = shrink(picture, known, max(hole.shape) // 2)
        guess = cv2.resize(_harmonic(coarse, weight < 1e-3), hole.shape[::-1])
    free = hole[..., None]
    solved = np.where(free, guess, picture).astype(np.float32)
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4.0
    for _ in range(_SWEEPS):
        mean = cv2.filter2D(solved, -1, cross, borderType=cv2.BORDER_REPLICATE)
        solved = np.where(free, mean, solved)
    return solved


def _blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
