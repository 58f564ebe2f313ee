"""The salient object of a frame, and whether it is one thing of a sensible size (Eq. 9)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np


@dataclass(frozen=True)
class MaskFacts:
    """What a mask looks like.

    Attributes:
        share: of the picture that the object covers.
        main_part: share of the object in its largest connected part.
    """

    share: float
    main_part: float


def find_object(picture: np.ndarray, network: Path | None, weights: bool = True) -> np.ndarray:
    """The salient object of a picture [H, W, 3] uint8 as [H, W] bool; all of it if none stands out.

    Args:
        network: an ONNX file; None for the one of the package.
        weights: False finds it by GrabCut alone.

    Raises:
        LoopAnimateError: the network cannot be used.
    """
    import torch

    from loopanimate_core.picture.saliency import salient_mask

    pixels = torch.from_numpy(np.ascontiguousarray(picture)).float() / 255
    method = "onnx" if weights else "grabcut"
    # That nothing stands out becomes the clip's status; a warning is not needed.
    found = salient_mask(pixels, method=method, model_path=network, name=None)
    return found.numpy() > 0.5


def describe_mask(mask: np.ndarray) -> MaskFacts:
    """Share and main part of a mask [H, W] bool; zeros if it is empty."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas):
        return MaskFacts(0.0, 0.0)
    return MaskFacts(float(mask.mean()), float(areas.max() / areas.sum()))


def crop(picture: np.ndarray, mask: np.ndarray, margin: float = 0.1) -> np.ndarray:
    """The rectangle around the object, with a margin on each side as a share of its sides."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return picture
    spans = []
    for found, size in ((rows, mask.shape[0]), (columns, mask.shape[1])):
        extra = round(margin * (found[-1] - found[0] + 1))
        spans.append(slice(max(0, found[0] - extra), min(size, found[-1] + 1 + extra)))
    return picture[tuple(spans)]
