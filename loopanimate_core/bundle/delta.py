"""A delta: only the tensors that a training changed, for users who have the model it started from.

A safetensors file with the changed tensors under their names in a bundle. Its header identifies the base by
the SHA-256 of its weights (everything after the header, as in ModelSpec, so that a new title does not
matter) and has the config and provenance of the result. docs/bundle.md describes it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import LoopAnimateError
from .bundle import FORMAT as BUNDLE_FORMAT
from .config import BundleConfig
from .few_steps import PREFIX as FEW_STEPS
from .read import bundle_info
from .tensorfile import Header, count_parameters, open_tensors, read_header, write_tensors

FORMAT = "loopanimate-delta/1"


@dataclass(frozen=True)
class DeltaInfo:
    """The header of a delta.

    Attributes:
        base_name, base_sha256: the base bundle's file name, and the SHA-256 of its weights.
        config, provenance: those of the result.
        tensors, parameters: the numbers of tensors and parameters that it replaces.
    """

    path: Path
    base_name: str
    base_sha256: str
    config: BundleConfig
    provenance: dict[str, Any]
    metadata: dict[str, str]
    tensors: int
    parameters: int
    size_bytes: int


def weights_sha256(path: str | Path) -> str:
    """The SHA-256 of a safetensors file without its header.

    Raises:
        LoopAnimateError: the file does not exist or is not a safetensors file.
    """
    read_header(path)
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        file.seek(8 + struct.unpack("<Q", file.read(8))[0])
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def is_delta(path: str | Path) -> bool:
    """Whether a file is a delta of any version.

    Raises:
        LoopAnimateError: the file does not exist or is not a safetensors file.
    """
    return read_header(path).metadata.get("format", "").startswith("loopanimate-delta/")


def write_delta(
    path: str | Path,
    changed: Mapping[str, Tensor],
    base: str | Path,
    config: BundleConfig,
    provenance: Mapping[str, Any],
    dtype: torch.dtype | None = torch.float16,
    *,
    title: str | None = None,
    license: str | None = None,
) -> None:
    """Write the changed tensors, named as in a bundle (`unet.…`), completely or not at all.

    Args:
        base: the bundle that they change.
        config, provenance: those of the result.

    Raises:
        LoopAnimateError: `base` is not a bundle or does not have these tensors, or the file cannot be written.
    """
    base = bundle_info(base).path  # checks that it is a bundle
    _require_fit(base, read_header(base), {k: tuple(t.shape) for k, t in changed.items()})
    metadata = {
        "format": FORMAT,
        "base": json.dumps({"name": base.name, "weights_sha256": weights_sha256(base)}),
        "config": json.dumps(config.to_dict()),
        "provenance": json.dumps(dict(provenance)),
        "modelspec.title": title or Path(path).stem,
    }
    if license:
        metadata["modelspec.license"] = license
    write_tensors(path, changed, metadata, dtype)


def delta_info(path: str | Path) -> DeltaInfo:
    """Read the header of a delta, without its tensors.

    Raises:
        LoopAnimateError: the file is not a delta, or is damaged.
    """
    header = read_header(path)
    metadata = header.metadata
    if metadata.get("format") != FORMAT:
        raise LoopAnimateError(f"{path} is not a delta that this version reads ({FORMAT})")
    try:
        base = json.loads(metadata["base"])
        config = BundleConfig.from_dict(json.loads(metadata["config"]))
        return DeltaInfo(
            path=header.path,
            base_name=base["name"],
            base_sha256=base["weights_sha256"],
            config=config,
            provenance=json.loads(metadata["provenance"]),
            metadata={k: v for k, v in metadata.items() if k.startswith("modelspec.")},
            tensors=len(header.shapes),
            parameters=count_parameters(header.shapes),
            size_bytes=header.size_bytes,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LoopAnimateError(f"{path}: the delta's header is damaged ({error})") from error


def apply_delta(delta: str | Path, base: str | Path, target: str | Path) -> None:
    """Write the bundle that results from a delta and its base, with the dtypes of the base.

    Raises:
        LoopAnimateError: the delta belongs to another base, or a file is damaged.
    """
    info = delta_info(delta)
    header = read_header(bundle_info(base).path)
    if weights_sha256(base) != info.base_sha256:
        raise LoopAnimateError(
            f"{base} does not have the weights that this delta belongs to: {info.base_name}, SHA-256 of "
            f"the weights {info.base_sha256[:16]}…"
        )
    _require_fit(header.path, header, read_header(delta).shapes)
    with open_tensors(base) as old, open_tensors(delta) as new:
        # Few-step weights belong to the base's own UNet.
        kept = [name for name in header.shapes if not name.startswith(f"{FEW_STEPS}.")]
        tensors = {name: old.get_tensor(name) for name in kept}
        for name in read_header(delta).shapes:
            tensors[name] = new.get_tensor(name).to(tensors[name].dtype)
        metadata = {
            **header.metadata,
            **info.metadata,
            "format": BUNDLE_FORMAT,
            "config": json.dumps(info.config.to_dict()),
            "provenance": json.dumps(info.provenance),
        }
        metadata.pop("modelspec.thumbnail", None)  # it shows a loop of the base
        write_tensors(target, tensors, metadata)


def _require_fit(base: Path, header: Header, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if header.shapes.get(name) != tuple(shape):
            raise LoopAnimateError(f"{base} has no tensor {name!r} of shape {list(shape)}")
