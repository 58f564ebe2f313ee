"""Reading bundles: the header alone, state dicts, or ready modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..encoders.tokenizer import build_tokenizer
from ..errors import LoopAnimateError
from .bundle import FORMATS, Bundle
from .components import build_on_meta, load_weights, require_same_tensors, shapes_of
from .config import BundleConfig
from .few_steps import PREFIX as FEW_STEPS
from .few_steps import require_fit
from .reader import read_config, read_provenance
from .tensorfile import Header, count_parameters, open_tensors, read_header, require_finite


@dataclass(frozen=True)
class BundleInfo:
    """The header of a bundle.

    Attributes:
        metadata: the other strings of the header, such as ModelSpec's (`modelspec.title`, …).
        parameters: the number of parameters of each part.
        few_steps: the number of parameters of the few-step weights, 0 without.
        dtype: the stored dtype of most tensors, e.g. "F16".
    """

    path: Path
    config: BundleConfig
    provenance: dict[str, Any]
    metadata: dict[str, str]
    parameters: dict[str, int]
    dtype: str
    size_bytes: int
    few_steps: int = 0


@dataclass
class BundleParts:
    """A bundle as state dicts, for programs that build the networks with their own classes.

    `few_steps` holds the few-step weights as they are stored (`few_steps.py`); it is empty without.
    """

    config: BundleConfig
    provenance: dict[str, Any]
    states: dict[str, dict[str, Tensor]]
    few_steps: dict[str, Tensor] = field(default_factory=dict)


def bundle_info(path: str | Path) -> BundleInfo:
    """Read the header of a bundle, without its tensors.

    Raises:
        LoopAnimateError: the file cannot be used; the message gives the reason.
    """
    header = read_header(path)
    config, provenance = _parse_metadata(header)
    shapes = _shapes_by_part(header, config)
    dtypes = list(header.dtypes.values())
    return BundleInfo(
        path=header.path,
        config=config,
        provenance=provenance,
        metadata={k: v for k, v in header.metadata.items() if k not in ("config", "provenance")},
        parameters={part: count_parameters(shapes[part]) for part in config.parts},
        dtype=max(set(dtypes), key=dtypes.count),
        size_bytes=header.size_bytes,
        few_steps=count_parameters(shapes[FEW_STEPS]),
    )


def read_bundle(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Bundle:
    """Read a bundle into modules in eval mode.

    Args:
        dtype: the dtype of all weights.

    Raises:
        LoopAnimateError: the file cannot be used; the message gives the reason.
    """
    header = read_header(path)
    config, provenance = _parse_metadata(header)
    shapes = _shapes_by_part(header, config)
    modules: dict[str, Any] = {
        part: build_on_meta(part, getattr(config, part)) for part in config.parts
    }
    for part, module in modules.items():  # checked before the first tensor is read
        require_same_tensors(f"{path}: {part}", shapes_of(part, module), shapes[part])
    require_fit(f"{path}: {FEW_STEPS}", shapes[FEW_STEPS], shapes["unet"])
    tokenizer = build_tokenizer(config.tokenizer)
    for part, module in modules.items():
        load_weights(part, module, _read_part(path, part, shapes[part], device, dtype))
    modules.setdefault("image_encoder", None)
    few_steps = _read_part(path, FEW_STEPS, shapes[FEW_STEPS], device, dtype)
    return Bundle(
        config,
        **modules,
        tokenizer=tokenizer,
        provenance=provenance,
        path=header.path,
        few_steps=few_steps,
    )


def read_parts(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> BundleParts:
    """Read a bundle as state dicts (keys without the part's prefix), without diffusers and transformers.

    The UNet's tensors are checked against its settings. The caller checks the other parts.

    Args:
        dtype: None keeps the stored dtype.

    Raises:
        LoopAnimateError: the file cannot be used; the message gives the reason.
    """
    header = read_header(path)
    config, provenance = _parse_metadata(header)
    shapes = _shapes_by_part(header, config)
    expected = shapes_of("unet", build_on_meta("unet", config.unet))
    require_same_tensors(f"{path}: unet", expected, shapes["unet"])
    require_fit(f"{path}: {FEW_STEPS}", shapes[FEW_STEPS], shapes["unet"])
    read = {part: _read_part(path, part, shapes[part], device, dtype) for part in shapes}
    few_steps = read.pop(FEW_STEPS)
    return BundleParts(config, provenance, read, few_steps)


def _parse_metadata(header: Header) -> tuple[BundleConfig, dict[str, Any]]:
    found = header.metadata.get("format", "")
    if found.startswith("loopanimate-delta/"):
        raise LoopAnimateError(
            f"{header.path} is a delta, which has only the changes of a training; apply it to its base "
            "with `loopanimate convert apply`"
        )
    if not found.startswith("loopanimate/"):
        raise LoopAnimateError(
            f"{header.path} is a safetensors file but not a LoopAnimate bundle; "
            "`loopanimate convert` builds one from Stable Diffusion 1.x parts"
        )
    if found not in FORMATS:
        raise LoopAnimateError(
            f"{header.path} has the format {found!r}, but this version of LoopAnimate reads "
            f"{' and '.join(map(repr, FORMATS))}; update LoopAnimate"
        )
    if "config" not in header.metadata:
        raise LoopAnimateError(f"{header.path}: the bundle's config is missing or damaged")
    try:
        config = read_config(header.metadata["config"], "the bundle's config", len(header.shapes))
        text = header.metadata.get("provenance", "{}")
        return config, read_provenance(text, "the bundle's provenance")
    except LoopAnimateError as error:
        raise LoopAnimateError(f"{header.path}: {error}") from None


def _shapes_by_part(header: Header, config: BundleConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        part: {} for part in (*config.parts, FEW_STEPS)
    }
    for name, shape in header.shapes.items():
        part, _, rest = name.partition(".")
        if part not in shapes or not rest:
            raise LoopAnimateError(f"{header.path} has an unknown tensor {name!r}")
        shapes[part][rest] = shape
    return shapes


def _read_part(
    path: str | Path,
    part: str,
    names: Mapping[str, Any],
    device: str | torch.device,
    dtype: torch.dtype | None,
) -> dict[str, Tensor]:
    state = {}
    with open_tensors(path, device) as handle:
        for name in names:
            tensor = handle.get_tensor(f"{part}.{name}")
            require_finite(f"{part}.{name}", tensor, f"in {path}")
            state[name] = tensor if dtype is None else tensor.to(dtype)
    return state
