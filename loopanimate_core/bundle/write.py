"""Writing bundles."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..settings import FewSteps
from .bundle import FEW_STEPS_FORMAT, FORMAT, Bundle
from .components import build_on_meta, require_same_tensors, shapes_of, state_of
from .config import BundleConfig
from .few_steps import PREFIX as FEW_STEPS
from .few_steps import require_fit
from .read import bundle_info
from .tensorfile import open_tensors, read_header, write_tensors

THUMBNAIL_SIDE_PX = 256
_MODELSPEC_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


def write_bundle(
    path: str | Path,
    bundle: Bundle,
    dtype: torch.dtype = torch.float16,
    *,
    title: str | None = None,
    author: str | None = None,
    license: str | None = None,
    description: str | None = None,
    date: str | None = None,
    thumbnail: Any = None,
) -> None:
    """Write a bundle completely or not at all.

    Args:
        dtype: the stored dtype of all weights.
        title: shown by other programs; by default the file's name.
        author, license, description: free text.
        date: the model's date, ISO 8601.
        thumbnail: a PIL image or the path of a picture; stored as a small JPEG.

    Raises:
        LoopAnimateError: weights with NaN or infinite values, weights that do not fit the config, or a file that
            cannot be written.
    """
    config = bundle.config
    tensors: dict[str, Tensor] = {}
    for part, module in bundle.parts.items():
        state = state_of(part, module)
        require_same_tensors(
            f"the {part}",
            shapes_of(part, build_on_meta(part, getattr(config, part))),
            {name: tuple(tensor.shape) for name, tensor in state.items()},
        )
        tensors |= {f"{part}.{name}": tensor for name, tensor in state.items()}
    few = bundle.few_steps
    require_fit(
        "the few-step weights",
        {name: tuple(tensor.shape) for name, tensor in few.items()},
        shapes_of("unet", bundle.unet),
    )
    tensors |= {f"{FEW_STEPS}.{name}": tensor for name, tensor in few.items()}
    spec = {
        "title": title or Path(path).stem,
        "author": author,
        "license": license,
        "description": description,
        "date": date,
        "thumbnail": None if thumbnail is None else _thumbnail_uri(thumbnail),
    }
    metadata = {
        "format": FEW_STEPS_FORMAT if few or config.defaults.fast is not None else FORMAT,
        "config": _json(config.to_dict()),
        "provenance": _json(bundle.provenance),
        **_modelspec(config, spec),
    }
    write_tensors(path, tensors, metadata, dtype)


def add_few_steps(
    base: str | Path,
    target: str | Path,
    tensors: Mapping[str, Tensor],
    fast: FewSteps,
    provenance: Mapping[str, Any],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write the bundle `base` with few-step weights; everything else stays as it is. They may be the same file.

    Args:
        tensors: as they are stored (`few_steps.py`); they replace those that `base` may have.
        fast: how to sample with them.
        provenance: that of the result.

    Raises:
        LoopAnimateError: `base` is not a bundle, the tensors do not fit it, or the file cannot be written.
    """
    config = bundle_info(base).config
    header = read_header(base)
    network = shapes_of("unet", build_on_meta("unet", config.unet))
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    require_fit("the few-step weights", found, network)
    config = dataclasses.replace(config, defaults=dataclasses.replace(config.defaults, fast=fast))
    kept = [name for name in header.shapes if not name.startswith(f"{FEW_STEPS}.")]
    with open_tensors(base) as handle:
        merged = {name: handle.get_tensor(name) for name in kept}
        merged |= {f"{FEW_STEPS}.{name}": tensor.to(dtype) for name, tensor in tensors.items()}
        metadata = {
            **header.metadata,
            "format": FEW_STEPS_FORMAT,
            "config": _json(config.to_dict()),
            "provenance": _json(dict(provenance)),
        }
        write_tensors(target, merged, metadata)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _modelspec(config: BundleConfig, given: Mapping[str, str | None]) -> dict[str, str]:
    """The fields of ModelSpec 1.0 (github.com/Stability-AI/ModelSpec)."""
    fields = {
        "sai_model_spec": "1.0.0",
        "architecture": "loopanimate-v1",
        "implementation": "loopanimate",
        "resolution": f"{config.width_px}x{config.height_px}",
        "prediction_type": _MODELSPEC_PREDICTIONS[config.schedule.prediction_type],
        "usage_hint": "LoopAnimate bundle; trained on loops of "
        + ", ".join(str(frames) for frames in config.frames)
        + " frames",
        "tags": "image-to-video,loop",
        **given,
    }
    return {f"modelspec.{name}": value for name, value in fields.items() if value}


def _thumbnail_uri(picture: Any) -> str:
    from ..picture.opening import open_picture

    image = open_picture(Path(picture)) if isinstance(picture, (str, Path)) else picture
    image = image.convert("RGB")
    image.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode("ascii")
