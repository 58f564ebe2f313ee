"""The salient object of a picture as a binary mask: what should move, without its background.

Three methods: the picture's own transparency, any salient-object network as an ONNX file, and GrabCut,
which needs no weights and starts from a model of the background's colour.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import LoopAnimateError
from .images import fit_pixels, require_rgb

Method = Literal["auto", "alpha", "grabcut", "onnx"]
Normalisation = Literal["auto", "imagenet", "half"]

GRABCUT_LONG_SIDE_PX = 320
MAX_GROW_PX = 512
MIN_SHARE, MAX_SHARE = 0.001, 0.995  # a mask outside this range is not an object
DYNAMIC_ONNX_PX = 512

_GRABCUT_ROUNDS = 5
_BORDER_SHARE = 0.04  # width of the ring that counts as background
_RECTANGLE_SHARE = 0.08
_MAX_SCATTER = 6.0  # of the border around a smooth colour, in CIELAB units
_MAX_SMOOTH_STEP = 12.0  # between neighbouring pixels of a blurred background
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
_HALF_NAMES = ("isnet", "is-net", "is_net", "rmbg")  # trained on pictures minus 0.5

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

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
) -> torch.Tensor:
    """Mask `[H, W]` of the picture `[H, W, 3]` in 0..1: 1 on the object, 0 elsewhere.

    If no object stands out from the background, the whole frame is the object, with a warning.

    Args:
        alpha: `[H, W]`, the picture's transparency, if it has any.
        method: `alpha`, `onnx` (needs `model_path`) or `grabcut`; `auto` takes the first of the three
            that is possible.
        model_path: a salient-object network (U²-Net, IS-Net, BiRefNet …) with one picture as input
            and the object's score as its first output.
        normalisation: the mean and deviation of the network's input: `imagenet`, or `half` for 0.5 and
            1; `auto` is `half` for files with IS-Net or RMBG in their name.
        threshold: 0..1, for alpha or score; GrabCut does not use it.
        grow_px: widen the mask by so many pixels; negative values shrink it.

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
        if model_path is None:
            raise LoopAnimateError("method 'onnx' needs a model_path, the file of an ONNX model")
        mask = onnx_scores(picture, model_path, normalisation) > threshold
    else:
        mask = _grabcut(picture)
    mask = _grow(mask, grow_px).float().to(picture.device)
    share = float(mask.mean())
    if MIN_SHARE <= share <= MAX_SHARE:
        return mask
    _log.warning(
        "no object stands out (%.1f %% of the picture); using the whole picture", 100 * share
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
    return "grabcut" if model_path is None else "onnx"


def _grow(mask: torch.Tensor, grow_px: int) -> torch.Tensor:
    """Dilate (or erode) `[H, W]` by a disc, with the exact distance to the mask's edge."""
    if grow_px == 0 or not mask.any() or mask.all():
        return mask
    import cv2

    outside = grow_px > 0
    zeros = (~mask if outside else mask).cpu().numpy().astype(np.uint8)
    distance = torch.from_numpy(cv2.distanceTransform(zeros, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
    return distance <= grow_px if outside else distance > -grow_px


# GrabCut


def _grabcut(picture: torch.Tensor) -> torch.Tensor:
    """Object mask `[H, W]` (bool) by GrabCut from seeds of the background model, at 320 px."""
    import cv2

    height, width = picture.shape[:2]
    small = _shrunk(picture.cpu())
    seeds = _seeds(small)
    pixels = np.ascontiguousarray((small.numpy() * 255).round().astype(np.uint8)[..., ::-1])
    if len(np.unique(seeds)) > 1 and _has_both(seeds):
        cv2.setRNGSeed(0)  # GrabCut starts its colour clusters at random
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(pixels, seeds, None, *models, _GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)  # pyright: ignore[reportCallIssue, reportArgumentType]
    mask = _tidy(np.isin(seeds, (cv2.GC_FGD, cv2.GC_PR_FGD)))
    scores = torch.from_numpy(mask.astype(np.float32))[..., None]
    return fit_pixels(scores, height, width, "stretch")[..., 0] > 0.5


def _shrunk(picture: torch.Tensor) -> torch.Tensor:
    height, width = picture.shape[:2]
    scale = min(1.0, GRABCUT_LONG_SIDE_PX / max(height, width))
    size = max(8, round(height * scale)), max(8, round(width * scale))
    return fit_pixels(picture, *size, mode="stretch")


def _has_both(seeds: np.ndarray) -> bool:
    import cv2

    foreground = np.isin(seeds, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return bool(foreground.any() and not foreground.all())


def _seeds(small: torch.Tensor) -> np.ndarray:
    """GrabCut's labels `[H, W]`, from the first of three models of the background that works.

    First, a smooth colour: plain backgrounds and gradients. Second, pixels that can be reached from the
    border without a sharp step: blurred backgrounds. Otherwise, everything near the border.
    """
    import cv2

    lab = cv2.cvtColor(small.numpy(), cv2.COLOR_RGB2LAB)
    ring = _ring(*lab.shape[:2])
    seeds = _colour_seeds(lab, ring)
    if seeds is None:
        seeds = _reach_seeds(lab, ring)
    if seeds is None:
        seeds = np.full(lab.shape[:2], cv2.GC_BGD, np.uint8)
        seeds[~_ring(*lab.shape[:2], share=_RECTANGLE_SHARE)] = cv2.GC_PR_FGD
    return seeds


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


# ONNX


@dataclass(frozen=True)
class _Network:
    session: Any
    input_name: str
    size: tuple[int, int]
    dtype: type


def onnx_scores(
    picture: torch.Tensor,
    model_path: str | os.PathLike[str],
    normalisation: Normalisation = "auto",
) -> torch.Tensor:
    """Score `[H, W]` in 0..1 of every pixel of a picture `[H, W, 3]`, by an ONNX network.

    Scores outside 0..1 count as logits if any is negative, otherwise they are divided by the largest.
    """
    path = Path(model_path)
    if normalisation not in ("auto", "imagenet", "half"):
        raise LoopAnimateError(
            f"normalisation must be 'auto', 'imagenet' or 'half', got {normalisation!r}"
        )
    network = _load(path)
    if normalisation == "auto":
        named = any(name in path.name.lower() for name in _HALF_NAMES)
        normalisation = "half" if named else "imagenet"
    mean, deviation = (torch.tensor(t) for t in (_HALF if normalisation == "half" else _IMAGENET))
    resized = fit_pixels(picture.float().cpu(), *network.size, mode="stretch")
    pixels = ((resized - mean) / deviation).permute(2, 0, 1)[None].numpy().astype(network.dtype)
    try:
        output = network.session.run(None, {network.input_name: pixels})[0]
    except Exception as error:  # onnxruntime raises its own exception classes
        raise LoopAnimateError(
            f"the ONNX model {path} failed on the picture ({_first_line(error)})"
        ) from error
    scores = _as_scores(np.asarray(output), path)
    full = F.interpolate(
        scores[None, None], size=picture.shape[:2], mode="bilinear", align_corners=False
    )
    return full[0, 0]


def _as_scores(output: np.ndarray, path: Path) -> torch.Tensor:
    if output.ndim < 2 or output.size != output.shape[-1] * output.shape[-2]:
        raise LoopAnimateError(
            f"the first output of the ONNX model {path} must be one map of scores, such as"
            f" [1, 1, H, W], got {list(output.shape)}"
        )
    scores = torch.from_numpy(output.reshape(output.shape[-2:]).astype(np.float32)).nan_to_num(0.0)
    if float(scores.min()) < -0.01:
        return scores.sigmoid()
    return scores / max(1.0, float(scores.max()))


def _load(path: Path) -> _Network:
    if not path.is_file():
        raise LoopAnimateError(f"there is no ONNX model {path}")
    return _load_version(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _load_version(path: Path, _modified_ns: int) -> _Network:
    """Open a model once; a changed file is opened again."""
    try:
        import onnxruntime
    except ImportError as error:
        raise LoopAnimateError("method 'onnx' needs the package onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises its own exception classes
        raise LoopAnimateError(
            f"{path} is not a usable ONNX model ({_first_line(error)})"
        ) from error
    inputs = session.get_inputs()
    if not _takes_one_picture(inputs):
        found = ", ".join(f"{each.name} {each.shape} {each.type}" for each in inputs)
        raise LoopAnimateError(
            f"the input of the ONNX model {path} must be one picture [1, 3, H, W] of floats, got {found}"
        )
    height, width = (
        side if isinstance(side, int) and side > 0 else DYNAMIC_ONNX_PX
        for side in inputs[0].shape[2:]
    )
    return _Network(session, inputs[0].name, (height, width), _DTYPES[inputs[0].type])


def _takes_one_picture(inputs: Sequence[Any]) -> bool:
    if len(inputs) != 1 or inputs[0].type not in _DTYPES or len(inputs[0].shape) != 4:
        return False
    channels = inputs[0].shape[1]
    return channels == 3 or not isinstance(channels, int)  # a name or None means any number


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
