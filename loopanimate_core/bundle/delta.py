"""A delta: the tensors that a training changed, for someone who has the model it started from.

A safetensors file with the changed tensors under their names in a bundle. Its header names the base by the
SHA-256 of its weights (everything behind the header, as ModelSpec counts it, so a new title changes nothing)
and holds the config and provenance of the result. docs/bundle.md describes it.
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
from .bundle import BundleConfig, bundle_info
from .tensorfile import Header, count_parameters, open_tensors, read_header, write_tensors

FORMAT = "loopanimate-delta/1"


@dataclass(frozen=True)
class DeltaInfo:
    """What the header of a delta says.

    Attributes:
        base_name, base_sha256: the bundle it belongs to.
        config, provenance: of the bundle that it makes.
        tensors, parameters: how many it replaces.
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
        LoopAnimateError: no such file, or another format.
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
        LoopAnimateError: no such file, or no safetensors file.
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
    """Write the changed tensors, named as in a bundle (`unet.…`), whole or not at all.

    Args:
        base: the bundle they belong to.
        config, provenance: of the result.

    Raises:
        LoopAnimateError: `base` is no bundle or has no tensor of such a name and shape, or the file cannot be written.
    """
    base = bundle_info(base).path  # a bundle, or a sentence
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
    """Read what a delta says about itself; no tensor is read.

    Raises:
        LoopAnimateError: not a delta, or a damaged one.
    """
    header = read_header(path)
    metadata = header.metadata
    if metadata.get("format") != FORMAT:
        raise LoopAnimateError(f"{path} is no delta of a format this version reads ({FORMAT})")
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
    """Write the bundle that a delta makes of its base; types are the base's.

    Raises:
        LoopAnimateError: `base` is another model than the one the delta was made from, or a file is damaged.
    """
    info = delta_info(delta)
    header = read_header(bundle_info(base).path)
    if weights_sha256(base) != info.base_sha256:
        raise LoopAnimateError(
            f"{base} has other weights than the model this delta was made from: {info.base_name}, "
            f"SHA-256 of the weights {info.base_sha256[:16]}…"
        )
    _require_fit(header.path, header, read_header(delta).shapes)
    with open_tensors(base) as old, open_tensors(delta) as new:
        tensors = {name: old.get_tensor(name) for name in header.shapes}
        for name in read_header(delta).shapes:
            tensors[name] = new.get_tensor(name).to(tensors[name].dtype)
        metadata = {
            **header.metadata,
            **info.metadata,
            "config": json.dumps(info.config.to_dict()),
            "provenance": json.dumps(info.provenance),
        }
        metadata.pop("modelspec.thumbnail", None)  # it shows the base
        write_tensors(target, tensors, metadata)


def _require_fit(base: Path, header: Header, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if header.shapes.get(name) != tuple(shape):
            raise LoopAnimateError(f"{base} has no tensor {name!r} of shape {list(shape)}")
