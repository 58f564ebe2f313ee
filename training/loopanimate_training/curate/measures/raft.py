"""Optical flow by RAFT (Teed and Deng 2020), torchvision's, with weights that the user gives."""

from __future__ import annotations

import importlib
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from loopanimate_core.bundle.tensorfile import read_tensors
from loopanimate_core.errors import LoopAnimateError

_LEAST_PX, _MULTIPLE_PX = 128, 8  # what RAFT's pyramid needs of each side
_AT_ONCE = 8  # pairs of pictures
_FIRST = "feature_encoder.convnormrelu.0.weight"
_SIZES = {32: "raft_small", 64: "raft_large"}  # channels of that layer


def raft_flows(frames: np.ndarray, weights: Path) -> list[np.ndarray]:
    """RAFT's flow of frames [n, H, W, 3] uint8: n-1 fields [H, W, 2], in pixels from each to the one before it.

    Pictures that are smaller than RAFT needs are enlarged for it.

    Raises:
        LoopAnimateError: torchvision is not installed, or the file has no weights of RAFT.
    """
    import torch
    from torch.nn import functional

    model, (height, width) = _open(weights), frames.shape[1:3]
    scale = max(1.0, _LEAST_PX / min(height, width))
    size = [
        math.ceil(side * scale / _MULTIPLE_PX - 1e-6) * _MULTIPLE_PX for side in (height, width)
    ]
    shrink = torch.tensor([width / size[1], height / size[0]]).view(1, 2, 1, 1)
    device = next(model.parameters()).device
    flows: list[np.ndarray] = []
    with torch.inference_mode():
        for at in range(0, len(frames) - 1, _AT_ONCE):
            some = torch.from_numpy(frames[at : at + _AT_ONCE + 1].copy()).permute(0, 3, 1, 2)
            some = functional.interpolate(
                some / 127.5 - 1, size, mode="bilinear"
            )  # [k+1, 3, H', W']
            found = model(some[1:].to(device), some[:-1].to(device))[-1].float().cpu()
            found = functional.interpolate(found, (height, width), mode="bilinear") * shrink
            flows += list(found.permute(0, 2, 3, 1).contiguous().numpy())
    return flows


@lru_cache(maxsize=1)
def _open(weights: Path) -> Any:
    """The network whose weights are in a file, on the GPU if there is one."""
    import torch

    try:
        models = importlib.import_module("torchvision.models.optical_flow")
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise LoopAnimateError(
            f"measure.raft needs torchvision, in the version for torch {torch.__version__}: {error}"
        ) from error
    try:
        state = read_tensors(weights)
        model = getattr(models, _SIZES[state[_FIRST].shape[0]])(weights=None)
        model.load_state_dict(state)
    except (LoopAnimateError, KeyError, IndexError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LoopAnimateError(
            f"{weights} has no weights of torchvision's raft_small or raft_large ({reason})"
        ) from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
