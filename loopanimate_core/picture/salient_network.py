"""Salient-object networks as ONNX files: load them, and score a picture's pixels."""

from __future__ import annotations

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
from ..extras import require_module
from .images import fit_pixels

Normalisation = Literal["auto", "imagenet", "half"]

DYNAMIC_ONNX_PX = 512

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
_HALF_NAMES = ("isnet", "is-net", "is_net", "rmbg")  # trained on pictures minus 0.5
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


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


def has_onnxruntime() -> bool:
    """Whether networks can be run."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


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
    onnxruntime = require_module("onnxruntime", "a salient-object network")
    onnxruntime.disable_telemetry_events()  # some builds for Linux report to their maker otherwise
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
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
