"""Soft cover and clean colours of the object, at the still's full size, from a coarse mask.

With cover a and background B, a picture is S = a F + (1 - a) B. The layer that moves is kept as P = a F, found as
S - (1 - a) B: at rest P + (1 - a) B is the still again, but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .fill import fill_hole, shrink

MASK_GRID_PX = 320  # salient masks are found at this size; edges are looked for within its pixels
MIN_COVER = 0.01
BUSY = 0.04  # root mean square of what a smooth background leaves unexplained, colours in 0..1
_EDGE_PX = 3  # soft edges are about this wide where the background is plain
_BEHIND_PX = 768  # the smooth background behind the edge is found at this size


@dataclass(frozen=True)
class Layers:
    """A still taken apart.

    Attributes:
        still: [H, W, 3] as it is shown.
        paint: [H, W, 4], the object's colours times its cover, and the cover.
        background: [H, W, 3], the still with the object filled in.
        busyness: how far the surroundings of the object are from smooth, in colour units 0..1.
        whole: the object is the whole picture, because the mask is empty or full.
    """

    still: np.ndarray
    paint: np.ndarray
    background: np.ndarray
    busyness: float
    whole: bool

    @property
    def cover(self) -> np.ndarray:
        """[H, W] in 0..1."""
        return self.paint[..., 3]


def split_layers(
    still: np.ndarray,
    mask: np.ndarray,
    *,
    alpha: np.ndarray | None = None,
    plate: np.ndarray | None = None,
    mask_px: float = 1.0,
) -> Layers:
    """Take a still [H, W, 3] apart by the mask [H, W] of its object.

    Args:
        alpha: [H, W], the picture's own transparency; the object's cover is taken from it.
        plate: [H, W, 3], the same scene without the object.
        mask_px: side of one pixel of the mask on the still: its edge is trusted to within that.
    """
    covered = mask > 0.5
    if covered.all() or not covered.any():
        paint = np.concatenate([still, np.ones_like(mask[..., None])], -1)
        return Layers(still, paint, still, 1.0, True)
    reach = int(np.ceil(max(_EDGE_PX, 1.5 * mask_px, 1.5 * max(mask.shape) / MASK_GRID_PX)))
    busyness = 0.0
    if alpha is not None:
        cover = np.where(grown(mask > MIN_COVER, reach), alpha, 0.0).astype(np.float32)
    else:
        cover = np.zeros(mask.shape, np.float32)
        part = _around(covered, 8 * reach)
        cover[part], busyness = _soft_cover(still[part], mask[part], reach)
    cover[cover < MIN_COVER] = 0.0
    hole = cover > 0.0
    if plate is None:
        background = fill_hole(still, hole)
    else:
        seam = cv2.GaussianBlur(grown(hole, reach).astype(np.float32), (0, 0), 0.5 * reach)
        background = still + np.maximum(seam, hole)[..., None] * (plate - still)
    paint = np.empty((*mask.shape, 4), np.float32)
    paint[..., 3] = cover
    np.multiply(background, cover[..., None] - 1.0, out=paint[..., :3])
    paint[..., :3] += still
    return Layers(still, paint, background, busyness, False)


def grown(flags: np.ndarray, by_px: float) -> np.ndarray:
    """Dilate [H, W] (bool) by a disc."""
    if not flags.any():
        return flags
    return cv2.distanceTransform((~flags).astype(np.uint8), cv2.DIST_L2, 5) <= by_px


def _soft_cover(still: np.ndarray, mask: np.ndarray, reach: int) -> tuple[np.ndarray, float]:
    """Cover [H, W], and how busy the background is.

    Where the surroundings are smooth, the background behind the edge is known, and a pixel is covered as far as
    its colour has gone from it, compared with the farthest in its neighbourhood. Elsewhere a guided
    filter lets the mask's edge follow the picture's.
    """
    inside, near = ~grown(mask <= 0.5, reach), grown(mask > 0.5, reach)
    distance = _smooth_behind(still, near)
    distance -= still
    distance = np.sqrt(np.einsum("hwc,hwc->hw", distance, distance))
    ring = grown(near, 4 * reach) & ~near
    busyness, noise = 1.0, 1.0
    if ring.any():
        busyness = float(np.sqrt(np.square(distance[ring]).mean() / 3.0))
        noise = float(np.quantile(distance[ring], 0.9))
    size = 2 * _EDGE_PX + 1
    farthest = cv2.dilate(distance, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    cover = np.clip((distance - noise) / np.maximum(farthest - noise, 0.04), 0.0, 1.0)
    busy = min(1.0, max(0.0, 2.0 * busyness / BUSY - 1.0))
    if busy > 0.0:
        cover += busy * (_guided(still, mask, reach) - cover)
    cover[inside] = 1.0
    cover[~near] = 0.0
    return cover, busyness


def _smooth_behind(still: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The still with its hole filled, smoothed everywhere."""
    known = (~hole).astype(np.float32)
    small, weight = shrink(still, known, _BEHIND_PX)
    sigma = max(2.0, 0.01 * max(weight.shape))
    mean = cv2.GaussianBlur(small * weight[..., None], (0, 0), sigma)
    mean /= np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-4)[..., None]
    filled = fill_hole(mean, weight < 0.5)
    return cv2.resize(filled, hole.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _guided(still: np.ndarray, mask: np.ndarray, radius: int, epsilon: float = 1e-4) -> np.ndarray:
    """He, Sun and Tang's guided filter with a grey guide: the mask as a local linear function of it."""
    size = (2 * radius + 1, 2 * radius + 1)

    def mean(plane: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(plane, -1, size, borderType=cv2.BORDER_REFLECT)

    guide = still.mean(-1)
    guide_mean, mask_mean = mean(guide), mean(mask)
    covariance = mean(guide * mask) - guide_mean * mask_mean
    variance = mean(guide * guide) - guide_mean * guide_mean
    slope = covariance / (variance + epsilon)
    offset = mask_mean - slope * guide_mean
    return np.clip(mean(slope) * guide + mean(offset), 0.0, 1.0)


def _around(flags: np.ndarray, margin_px: int) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around the true pixels, widened."""
    rows, columns = np.flatnonzero(flags.any(1)), np.flatnonzero(flags.any(0))
    return (
        slice(max(0, int(rows[0]) - margin_px), int(rows[-1]) + 1 + margin_px),
        slice(max(0, int(columns[0]) - margin_px), int(columns[-1]) + 1 + margin_px),
    )
