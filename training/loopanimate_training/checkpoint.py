"""Checkpoints that are whole or absent.

A checkpoint is a folder `step-00001000`: trained weights, their average, the optimiser's state, the
configuration, and a manifest with the SHA-256 of each. It is written beside its place, synced and
renamed; one whose hashes do not hold is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from loopanimate_core.errors import LoopAnimateError

PREFIX = "step-"
MANIFEST = "manifest.json"
WEIGHTS, AVERAGE, OPTIMIZER, STATE = (
    "weights.safetensors",
    "average.safetensors",
    "optimizer.pt",
    "state.json",
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimiser steps. Names are `unet.…` and `text_encoder.…`."""

    step: int
    config: dict[str, Any]
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    mean_loss: float | None = None


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint into the run's folder, then remove all but the newest `keep`.

    Raises:
        LoopAnimateError: the disk is full or read-only; earlier checkpoints are untouched.
    """
    target = run / f"{PREFIX}{checkpoint.step:08d}"
    partial = run / f".partial-{target.name}-{os.getpid()}"
    size = 2 * sum(t.nbytes for t in checkpoint.weights.values())
    size += _nbytes(checkpoint.optimizer)
    try:
        run.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(run).free < 1.1 * size + 2**20:
            raise LoopAnimateError(
                f"a checkpoint needs {size / 2**20:.0f} MiB and {run} has less free"
            )
        partial.mkdir()
        _write_files(partial, checkpoint)
        if target.exists():  # not loadable, or this step would not have been trained again
            shutil.rmtree(target)
        os.replace(partial, target)
        _sync(run)
    except (
        OSError,
        SafetensorError,
        RuntimeError,
    ) as error:  # torch.save on a full disk: RuntimeError
        raise LoopAnimateError(f"cannot save a checkpoint in {run}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, good or not."""
    return sorted(path for path in run.glob(f"{PREFIX}*") if path.is_dir())


def is_checkpoint(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def load_latest(run: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None when there is none."""
    for path in reversed(checkpoints(run)):
        try:
            return load_checkpoint(path)
        except LoopAnimateError as error:
            _log.warning("%s; trying the checkpoint before it", error)
    return None


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint after checking every hash.

    Raises:
        LoopAnimateError: a file is missing, cut off or altered.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for name, digest in manifest.items():
            if _sha256(path / name) != digest:
                raise LoopAnimateError(
                    f"{path / name} is damaged (its SHA-256 is not the manifest's)"
                )
        state = json.loads((path / STATE).read_text())
        return Checkpoint(
            state["step"],
            state["config"],
            load_file(path / WEIGHTS),
            load_file(path / AVERAGE),
            torch.load(path / OPTIMIZER, map_location="cpu", weights_only=True),
            state["mean_loss"],
        )
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise LoopAnimateError(f"{path} is no complete checkpoint ({error})") from error


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    save_file({k: v.contiguous() for k, v in checkpoint.weights.items()}, folder / WEIGHTS)
    save_file({k: v.contiguous() for k, v in checkpoint.average.items()}, folder / AVERAGE)
    torch.save(checkpoint.optimizer, folder / OPTIMIZER)
    state = {
        "step": checkpoint.step,
        "config": checkpoint.config,
        "mean_loss": checkpoint.mean_loss,
    }
    (folder / STATE).write_text(json.dumps(state, indent=1))
    manifest = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _nbytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_nbytes, value.values()))
    return 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
