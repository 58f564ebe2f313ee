"""The salient object of a picture as a binary mask: what should move, without its background.

Three methods: the picture's own transparency, a salient-object network (the small one in
`loopanimate_core/data`, or any ONNX file), and GrabCut, which needs no weights.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..errors import LoopAnimateError
from ..extras import require_module
from .grabcut import grabcut_mask, scored_mask
from .images import require_rgb
from .salient_network import Normalisation, has_onnxruntime, onnx_scores

Method = Literal["auto", "alpha", "grabcut", "onnx"]

MAX_GROW_PX = 512
MIN_SHARE, MAX_SHARE = 0.001, 0.995  # a mask outside this range is not an object
BUNDLED_NETWORK = Path(__file__).parent.parent / "data" / "salient.onnx"

_log = logging.getLogger(__name__)


@torch.no_grad()
def salient_mask(
    picture: torch.Tensor,
    *,
    alpha: torch.Tensor | None = None,
    method: Method = "auto",
    model_path: str | os.PathLike[str] | None = None,
    normalisation: Normalisation = "auto",
    threshold: float = 0.5,
    grow_px: int = 0,
    name: str | None = "the picture",
) -> torch.Tensor:
    """Mask `[H, W]` of the picture `[H, W, 3]` in 0..1: 1 on the object, 0 elsewhere.

    If no object stands out from the background, the whole frame is the object, with a warning.

    Args:
        alpha: `[H, W]`, the picture's transparency, if it has any.
        method: `alpha`, `onnx` or `grabcut`; `auto` takes the first of the three that is possible.
        model_path: a salient-object network (U²-Net, IS-Net, BiRefNet …) with one picture as input
            and the object's score as its first output. None is the bundled one, whose mask is
            refined by the picture's colours.
        normalisation: the mean and deviation of the network's input: `imagenet`, or `half` for 0.5 and
            1; `auto` is `half` for files with IS-Net or RMBG in their name.
        threshold: 0..1, for alpha or score; GrabCut does not use it.
        grow_px: widen the mask by so many pixels; negative values shrink it.
        name: what the warning calls the picture; None: no warning.

    Raises:
        LoopAnimateError: an argument out of range, a missing alpha, or a model that is missing, damaged
            or has other inputs or outputs.
    """
    picture = require_rgb(picture)
    _check(picture, alpha, method, threshold, grow_px)
    if method == "auto":
        method = _best_method(alpha, model_path, threshold)
    if method == "alpha":
        assert alpha is not None
        mask = alpha > threshold
    elif method == "onnx":
        mask = _network_mask(picture, model_path, normalisation, threshold)
    else:
        mask = grabcut_mask(picture)
    mask = _grow(mask, grow_px).float().to(picture.device)
    share = float(mask.mean())
    if MIN_SHARE <= share <= MAX_SHARE:
        return mask
    if name is not None:
        _log.warning(
            "no object stands out in %s (%.1f %%); using the whole picture", name, 100 * share
        )
    return torch.ones_like(mask)


def mask_preview(pictures: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Pictures `[N, H, W, 3]` with everything outside the masks `[N, H, W]` dark and grey."""
    grey = pictures.float().mean(-1, keepdim=True)
    return torch.where(masks[..., None] > 0.5, pictures.float(), 0.3 * grey)


def _check(
    picture: torch.Tensor, alpha: torch.Tensor | None, method: str, threshold: float, grow_px: int
) -> None:
    if method not in ("auto", "alpha", "grabcut", "onnx"):
        raise LoopAnimateError(
            f"method must be 'auto', 'alpha', 'grabcut' or 'onnx', got {method!r}"
        )
    if method == "alpha" and alpha is None:
        raise LoopAnimateError("method 'alpha' needs a picture with transparency")
    if alpha is not None and alpha.shape != picture.shape[:2]:
        raise LoopAnimateError(
            f"alpha must have the picture's size {list(picture.shape[:2])}, got {list(alpha.shape)}"
        )
    if not 0 < threshold < 1:
        raise LoopAnimateError(f"threshold must be between 0 and 1, got {threshold}")
    if abs(grow_px) > MAX_GROW_PX:
        raise LoopAnimateError(
            f"grow_px must be from -{MAX_GROW_PX} to {MAX_GROW_PX}, got {grow_px}"
        )


def _best_method(
    alpha: torch.Tensor | None, model_path: str | os.PathLike[str] | None, threshold: float
) -> Method:
    if alpha is not None:
        share = float((alpha > threshold).float().mean())
        if MIN_SHARE <= share <= MAX_SHARE:
            return "alpha"
    if model_path is not None or has_onnxruntime():
        return "onnx"
    _log.warning("onnxruntime is not installed, so the object is found with GrabCut alone")
    return "grabcut"


def _network_mask(
    picture: torch.Tensor,
    model_path: str | os.PathLike[str] | None,
    normalisation: Normalisation,
    threshold: float,
) -> torch.Tensor:
    if model_path is not None:
        return onnx_scores(picture, model_path, normalisation) > threshold
    return scored_mask(picture, onnx_scores(picture, BUNDLED_NETWORK, "half"), threshold)


def _grow(mask: torch.Tensor, grow_px: int) -> torch.Tensor:
    """Dilate (or erode) `[H, W]` by a disc, with the exact distance to the mask's edge."""
    if grow_px == 0 or not mask.any() or mask.all():
        return mask
    cv2 = require_module("cv2", "growing a mask")
    outside = grow_px > 0
    zeros = (~mask if outside else mask).cpu().numpy().astype(np.uint8)
    distance = torch.from_numpy(cv2.distanceTransform(zeros, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    return distance <= grow_px if outside else distance > -grow_px
