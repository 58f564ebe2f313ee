"""GrabCut, which finds an object by its colours: from models of the background, or from a network's scores."""

from __future__ import annotations

import numpy as np
import torch

from ..extras import require_module
from .images import fit_pixels

GRABCUT_LONG_SIDE_PX = 320

_GRABCUT_ROUNDS = 5
_UNSURE = (
    0.4  # scores between this share of the threshold and its counterpart above are left to GrabCut
)
# Intersection over union of scores and GrabCut: of a refined edge, of an object before a smooth colour,
# and of one before a blurred background, where GrabCut more often finds a part.
_MIN_AGREEMENT, _COLOUR_AGREEMENT, _REACH_AGREEMENT = 0.8, 0.3, 0.5
_BORDER_SHARE = 0.04  # width of the ring that counts as background
_RECTANGLE_SHARE = 0.08
_MAX_SCATTER = 6.0  # of the border around a smooth colour, in CIELAB units
_MAX_SMOOTH_STEP = 12.0  # between neighbouring pixels of a blurred background


def grabcut_mask(picture: torch.Tensor) -> torch.Tensor:
    """Object mask `[H, W]` (bool) of `picture [H, W, 3]`, from seeds of the background model, at 320 px."""
    require_module("cv2", "finding an object")
    small = _shrunk(picture.cpu())
    return _full_size(_tidy(_cut(small, _seeds(small)[0])), picture)


def scored_mask(picture: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Object mask `[H, W]` (bool) from a coarse network's scores `[H, W]` in 0..1 and the picture's colours.

    In front of a smooth background colours find an object exactly, so GrabCut's mask is taken if the
    scores confirm it; otherwise the scores, with their edges refined. If the scores find nothing,
    GrabCut decides alone.
    """
    require_module("cv2", "finding an object")
    small = _shrunk(picture.cpu())
    seeds, agreement = _seeds(small)
    coarse = fit_pixels(scores.cpu()[..., None], *small.shape[:2], mode="stretch")[..., 0].numpy()
    found = coarse > threshold
    if agreement is not None or not found.any():
        by_colour = _tidy(_cut(small, seeds))
        if not found.any() or _iou(by_colour, found) > (agreement or 0.0):
            return _full_size(by_colour, picture)
    return refined_mask(picture, scores, threshold)


def refined_mask(picture: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Object mask `[H, W]` (bool) with the edges of the picture, from scores `[H, W]` in 0..1.

    GrabCut decides where the scores do not: within a band around their edge. The scores alone decide
    if its result differs much from them, as it does where object and background share their colours.
    """
    import cv2

    small = _shrunk(picture.cpu())
    coarse = fit_pixels(scores.cpu()[..., None], *small.shape[:2], mode="stretch")[..., 0].numpy()
    found = coarse > threshold
    seeds = np.where(found, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    seeds[coarse > 1 - _UNSURE * (1 - threshold)] = cv2.GC_FGD
    seeds[coarse < _UNSURE * threshold] = cv2.GC_BGD
    refined = _tidy(_cut(small, seeds))
    if _iou(refined, found) < _MIN_AGREEMENT:
        return scores.cpu() > threshold
    return _full_size(refined, picture)


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum()) / max(1.0, float((one | other).sum()))


def _cut(small: torch.Tensor, seeds: np.ndarray) -> np.ndarray:
    """GrabCut from labels `[h, w]`, which it changes."""
    import cv2

    pixels = np.ascontiguousarray((small.numpy() * 255).round().astype(np.uint8)[..., ::-1])
    if len(np.unique(seeds)) > 1 and _has_both(seeds):
        cv2.setRNGSeed(0)  # GrabCut starts its colour clusters at random
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(pixels, seeds, None, *models, _GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return np.isin(seeds, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _full_size(mask: np.ndarray, picture: torch.Tensor) -> torch.Tensor:
    scores = torch.from_numpy(mask.astype(np.float32))[..., None]
    return fit_pixels(scores, *picture.shape[:2], mode="stretch")[..., 0] > 0.5


def _shrunk(picture: torch.Tensor) -> torch.Tensor:
    height, width = picture.shape[:2]
    scale = min(1.0, GRABCUT_LONG_SIDE_PX / max(height, width))
    size = max(8, round(height * scale)), max(8, round(width * scale))
    return fit_pixels(picture, *size, mode="stretch")


def _has_both(seeds: np.ndarray) -> bool:
    import cv2

    foreground = np.isin(seeds, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return bool(foreground.any() and not foreground.all())


def _seeds(small: torch.Tensor) -> tuple[np.ndarray, float | None]:
    """GrabCut's labels `[H, W]`, from the first of three models of the background that works.

    First, a smooth colour: plain backgrounds and gradients. Second, pixels that can be reached from the
    border without a sharp step: blurred backgrounds. Otherwise, everything near the border; then the
    second value is None instead of the agreement with a network's mask that confirms the result.
    """
    import cv2

    lab = cv2.cvtColor(small.numpy(), cv2.COLOR_RGB2LAB)
    ring = _ring(*lab.shape[:2])
    if (seeds := _colour_seeds(lab, ring)) is not None:
        return seeds, _COLOUR_AGREEMENT
    if (seeds := _reach_seeds(lab, ring)) is not None:
        return seeds, _REACH_AGREEMENT
    seeds = np.full(lab.shape[:2], cv2.GC_BGD, np.uint8)
    seeds[~_ring(*lab.shape[:2], share=_RECTANGLE_SHARE)] = cv2.GC_PR_FGD
    return seeds, None


def _colour_seeds(lab: np.ndarray, ring: np.ndarray) -> np.ndarray | None:
    """Labels from the distance to a colour surface fitted to the border; None if it does not fit.

    A quadratic surface fits plain colours and gradients exactly. The scatter of the border around the
    surface is the unit of distance.
    """
    import cv2

    background, scatter, share = _background(lab, ring)
    if scatter > _MAX_SCATTER or share < 0.6:
        return None
    distance = np.linalg.norm(lab - background, axis=-1) / scatter
    distance = cv2.medianBlur(distance.astype(np.float32), 3)  # grain
    seeds = np.full(lab.shape[:2], cv2.GC_PR_BGD, np.uint8)
    seeds[distance > 3.0] = cv2.GC_PR_FGD
    seeds[distance < 1.5] = cv2.GC_BGD
    seeds[(distance > 8.0) & ~ring] = cv2.GC_FGD
    seeds[ring & (distance < 3.0)] = cv2.GC_BGD
    return seeds


def _reach_seeds(lab: np.ndarray, ring: np.ndarray) -> np.ndarray | None:
    """Labels from whether a pixel can be reached from the border in small steps of colour.

    None if the border itself is sharp, or if almost nothing or almost everything can be reached.
    """
    import cv2

    pixels = cv2.medianBlur(np.clip(lab + np.array([0, 128, 128]), 0, 255).astype(np.uint8), 3)
    across = np.abs(np.diff(pixels.astype(np.int16), axis=1)).max(-1)[ring[:, 1:]]
    tolerance = 1 + 1.5 * float(np.percentile(across, 95))
    if tolerance > _MAX_SMOOTH_STEP:
        return None
    reached = np.zeros((lab.shape[0] + 2, lab.shape[1] + 2), np.uint8)  # floodFill needs a margin
    step, flags = (tolerance,) * 3, 4 | cv2.FLOODFILL_MASK_ONLY
    for y, x in np.argwhere(ring)[::7]:
        if not reached[y + 1, x + 1]:
            cv2.floodFill(pixels, reached, (int(x), int(y)), (), step, step, flags)
    inside = reached[1:-1, 1:-1] == 0
    inside = _large_pieces(inside, 0.002 * inside.size)
    if not 0.01 < inside.mean() < 0.8:
        return None
    seeds = np.full(lab.shape[:2], cv2.GC_BGD, np.uint8)
    seeds[cv2.dilate(inside.astype(np.uint8), np.ones((3, 3))) > 0] = cv2.GC_PR_BGD
    seeds[inside] = cv2.GC_PR_FGD
    seeds[cv2.erode(inside.astype(np.uint8), np.ones((7, 7))) > 0] = cv2.GC_FGD
    return seeds


def _background(lab: np.ndarray, ring: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The background's colour everywhere `[H, W, 3]`, its scatter, the share of the border it fits."""
    height, width = lab.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], -1)
    terms, colours = basis[ring], lab[ring].astype(np.float64)
    kept = np.ones(len(colours), bool)
    surface, scatter = np.zeros((6, 3)), 1.0
    for _ in range(5):  # fit again without outliers, such as an object at the edge
        surface, *_rest = np.linalg.lstsq(terms[kept], colours[kept], rcond=None)
        residual = np.linalg.norm(colours - terms @ surface, axis=-1)
        scatter = max(1.5, 1.5 * float(np.median(residual)))
        kept = residual < 2.5 * scatter
    return basis @ surface, scatter, float(kept.mean())


def _ring(height: int, width: int, share: float = _BORDER_SHARE) -> np.ndarray:
    """The border of the picture, `share` of its shorter side wide: `[H, W]` bool."""
    thickness = max(2, round(share * min(height, width)))
    ring = np.ones((height, width), bool)
    ring[thickness:-thickness, thickness:-thickness] = False
    return ring


def _tidy(mask: np.ndarray) -> np.ndarray:
    """Drop specks below 2 % of the largest piece, and fill holes below a tenth of the object."""
    if not mask.any():
        return mask
    kept = _large_pieces(mask, 0.02 * _largest(mask))
    holes = _large_pieces(~kept, 0.1 * float(kept.sum()))
    return ~holes


def _largest(mask: np.ndarray) -> float:
    import cv2

    stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2]
    return float(stats[1:, cv2.CC_STAT_AREA].max())


def _large_pieces(mask: np.ndarray, least: float) -> np.ndarray:
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    large = np.asarray(stats)[:, cv2.CC_STAT_AREA] >= least
    large[0] = False  # label 0 is everything outside the mask
    return large[np.asarray(labels, dtype=np.intp)]
