"""Files of named tensors: safetensors headers, a streaming writer, and a safe reader of old pickles."""

from __future__ import annotations

import json
import math
import pickle
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import LoopAnimateError
from ..files import atomic_write, require_file
from ..parsing import Fields, MalformedError, is_text, parse_json

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
}
ALIGNMENT_BYTES = 64  # of the first tensor; aligned memory-mapped tensors are as fast as copies
MAX_HEADER_BYTES = 100_000_000  # as the safetensors library
MAX_DIMENSIONS = 16
PICKLE_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: metadata strings, and each tensor's dtype and shape."""

    path: Path
    metadata: dict[str, str]
    dtypes: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    size_bytes: int


def read_header(path: str | Path) -> Header:
    """Read the header of a safetensors file, without its tensors.

    Raises:
        LoopAnimateError: the file does not exist, is a folder, has another format, or is incomplete.
    """
    path = Path(path)
    size = require_file(path, "file")
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = file.read(min(length, size, MAX_HEADER_BYTES))
    except OSError as error:
        raise LoopAnimateError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        if length > len(text):
            raise MalformedError("the header is incomplete")
        header, end = _read_entries(path, parse_json(text, "the header"), size)
    except MalformedError as error:
        raise LoopAnimateError(_why_unreadable(path, start, text, length, size, error)) from None
    expected = 8 + length + end
    if size != expected:
        state = "incomplete" if size < expected else "longer than its header says"
        raise LoopAnimateError(
            f"{path} is {state}: {size:,} of {expected:,} bytes; download it again"
        )
    return header


def _read_entries(path: Path, values: Any, size: int) -> tuple[Header, int]:
    """The header from its JSON, and where the last tensor ends. Raises MalformedError."""
    entries = Fields(values, "the header")
    strings = entries.fields("__metadata__", {})
    metadata = {name: strings.text(name, high=MAX_HEADER_BYTES) for name in strings}
    dtypes: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    end = 0
    for name in entries:
        if name == "__metadata__":
            continue
        entry = entries.fields(name)
        dtypes[name] = entry.text("dtype", high=20)
        shape = entry.items("shape", MAX_DIMENSIONS)
        offsets = entry.items("data_offsets", 2)
        for value in (*shape, *offsets):
            Fields({"size": value}, entry.what).whole("size", 0, 2**53)
        if len(offsets) != 2:
            raise MalformedError(f"'data_offsets' of {entry.what} must be two numbers")
        shapes[name], end = tuple(shape), max(end, offsets[1])
    return Header(path, metadata, dtypes, shapes, size), end


def _why_unreadable(
    path: Path, start: bytes, text: bytes, length: int, size: int, error: MalformedError
) -> str:
    if size == 0:
        return f"{path} is empty"
    if start.startswith(b"PK") or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        return f"{path} is a PyTorch pickle and not a safetensors file, in spite of its name"
    if text.startswith(b"{") and length > len(text):
        return f"{path} is incomplete ({size:,} bytes, within its header); download it again"
    if text.startswith(b"{"):
        return f"{path} is not a safetensors file: {error}"
    return f"{path} is not a safetensors file"


@contextmanager
def open_tensors(path: str | Path, device: str | torch.device = "cpu") -> Iterator[Any]:
    """A `safetensors.safe_open` handle that raises LoopAnimateError for a damaged file, or a name that it cannot open."""
    from safetensors import SafetensorError, safe_open

    read_header(path)
    if not is_text(str(path)):
        raise LoopAnimateError(
            f"the name {path} is not UTF-8; rename it, safetensors cannot open it"
        )
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as handle:
            yield handle
    except SafetensorError as error:
        raise LoopAnimateError(f"{path} is damaged: {error}") from error


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a safetensors file atomically, converting one tensor at a time.

    `safetensors.torch.save_file` would keep a second copy of all tensors in memory.

    Args:
        tensors: floating-point tensors on any device.
        metadata: the strings of the header.
        dtype: the stored dtype; None keeps each tensor's own.

    Raises:
        LoopAnimateError: a tensor has NaN or infinite values after conversion, or the file cannot be written.
    """
    names_of = {dtype: name for name, dtype in DTYPES.items()}
    stored = {name: dtype or tensor.dtype for name, tensor in tensors.items()}
    # Wide dtypes first, so that every tensor is aligned to its element size.
    order = sorted(tensors, key=lambda name: (-stored[name].itemsize, name))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name in order:
        end = offset + tensors[name].numel() * stored[name].itemsize
        entries[name] = {
            "dtype": names_of[stored[name]],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, end],
        }
        offset = end
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    header += b" " * (-(8 + len(header)) % ALIGNMENT_BYTES)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name in order:
            tensor = tensors[name].detach().to("cpu", stored[name]).contiguous()
            require_finite(name, tensor, "after conversion to " + names_of[stored[name]])
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)


def require_finite(name: str, tensor: Tensor, where: str) -> None:
    """Raise a LoopAnimateError if a tensor has a NaN or an infinite value."""
    if not tensor.is_floating_point() or not tensor.numel():
        return
    # aminmax returns NaN if there is one, and is 40 times faster than isfinite().all().
    ends = torch.stack(tensor.aminmax())
    if not torch.isfinite(ends).all():
        raise LoopAnimateError(f"tensor {name!r} has NaN or infinite values ({where})")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a weight file: safetensors, or a pickle (.ckpt, .bin, .pt, .pth) without running its code.

    A `state_dict` wrapper is removed, and values that are not tensors (epoch, global_step, settings) are
    skipped. Tensors are memory-mapped if the file allows it.

    Raises:
        LoopAnimateError: the file is missing or damaged, or is a pickle with more than tensors and plain values.
    """
    path = Path(path)
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        with open_tensors(path) as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    require_file(path, "file")
    return _tensors_of(read_pickle(path, mmap=_begins_as_zip(path)), path)


def _begins_as_zip(path: Path) -> bool:
    """Whether torch reads the file as a zip; `zipfile.is_zipfile` raises on some damaged ones."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def read_pickle(path: Path, *, mmap: bool = False) -> Any:
    """`torch.load` that never runs code from the file.

    Raises:
        LoopAnimateError: the file is damaged, or has more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise LoopAnimateError(f"{path} is not a readable PyTorch file") from error
        raise LoopAnimateError(
            f"{path} has Python objects besides tensors and is not opened, because that can run code; "
            "save its state dict as .safetensors with a tool you trust"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # old pickles that are cut off raise almost anything
        raise LoopAnimateError(f"{path} is damaged or not a PyTorch file") from error


def _tensors_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    tensors = (
        {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
        if isinstance(loaded, Mapping)
        else {}
    )
    if not tensors:
        raise LoopAnimateError(f"{path} has no named tensors")
    return tensors


def count_parameters(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The number of parameters in tensors of these shapes."""
    return sum(math.prod(shape) for shape in shapes.values())
