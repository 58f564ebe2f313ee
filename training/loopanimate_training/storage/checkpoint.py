"""Checkpoints that are complete or absent.

A checkpoint is a folder `step-00001000`: trained weights, their average, the optimiser's state, the
configuration, and a manifest with the SHA-256 of each file. It is written under a temporary name, synced and
renamed. A checkpoint whose hashes are wrong is skipped, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from loopanimate_core.bundle.tensorfile import read_pickle, write_tensors
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import read_file, require_file, umask
from loopanimate_core.parsing import Fields, MalformedError, parse_json, plain_text

from ..config import relocated

PREFIX = "step-"
MANIFEST = "manifest.json"
WEIGHTS, AVERAGE = "weights.safetensors", "average.safetensors"
OPTIMIZER, STATE = "optimizer.pt", "state.json"
MAX_FILES = 1000
MAX_JSON_BYTES = 64 * 2**20
LATER = "later"  # folder of checkpoints that a run has gone back behind
PARTIAL, REPLACED = ".partial-", ".replaced-"  # prefixes of what a killed process may leave behind

_log = logging.getLogger(__name__)


class CannotSave(LoopAnimateError):
    """A checkpoint could not be written; earlier ones are untouched."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimiser steps. Names are `unet.…` and `text_encoder.…`.

    `loss_scale` belongs to float16 runs: the factor, and the steps since it last changed. `origin` has
    hashes of what the run started from.
    """

    step: int
    config: dict[str, Any]
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    mean_loss: float | None = None
    loss_scale: tuple[float, int] | None = None
    origin: dict[str, str] = field(default_factory=dict)


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint into the run's folder, then remove all but the newest `keep` up to this step.

    Checkpoints of later steps do not count: they must be damaged, or this step would not be repeated.

    Raises:
        CannotSave: the disk is full, failing or read-only.
        LoopAnimateError: a weight is not finite.
    """
    require_finite(checkpoint)
    target = run / f"{PREFIX}{checkpoint.step:08d}"
    partial = run / f"{PARTIAL}{target.name}-{os.getpid()}"
    size = 2 * sum(t.nbytes for t in checkpoint.weights.values())
    size += _nbytes(checkpoint.optimizer)
    try:
        run.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(run).free
        if free < 1.1 * size + 2**20:
            raise CannotSave(
                f"a checkpoint needs {size / 2**20:.0f} MiB and {run} has {free / 2**20:.0f} MiB free"
            )
        partial.mkdir()
        _write_files(partial, checkpoint)
        _put_in_place(partial, target)
        _sync(run)
    except CannotSave:
        raise
    except (
        OSError,
        LoopAnimateError,
        RuntimeError,
    ) as error:  # RuntimeError: torch.save, disk full
        raise CannotSave(f"cannot save a checkpoint in {run}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    past = [path for path in checkpoints(run) if is_checkpoint(path) and path.name <= target.name]
    for old in past[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def require_finite(checkpoint: Checkpoint) -> None:
    """Refuse to save weights that are useless.

    Raises:
        LoopAnimateError: a weight, or its average, is not finite.
    """
    for tensors in (checkpoint.weights, checkpoint.average):
        for name, tensor in tensors.items():
            # aminmax gives NaN if there is one, and is many times faster than isfinite().all()
            if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
                raise LoopAnimateError(
                    f"{name} is not finite after step {checkpoint.step}; nothing was saved, and the run"
                    " can resume from the checkpoint before"
                )


def remove_leftovers(run: Path) -> None:
    """Remove what processes that were killed while saving left behind."""
    for path in (*run.glob(f"{PARTIAL}*"), *run.glob(f"{REPLACED}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:  # an unfinished file of `atomic_write`
            path.unlink(missing_ok=True)


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, complete or damaged."""
    return sorted(path for path in run.glob(f"{PREFIX}*") if path.is_dir())


def is_checkpoint(path: Path) -> bool:
    return (path / MANIFEST).is_file()


def load_latest(run: Path) -> Checkpoint | None:
    """The newest complete checkpoint; None when the run has no checkpoint at all.

    Raises:
        LoopAnimateError: there are checkpoints, but all are damaged; a fresh start would overwrite them.
    """
    found = checkpoints(run)
    for path in reversed(found):
        try:
            return load_checkpoint(path)
        except LoopAnimateError as error:
            _log.warning("%s; trying the checkpoint before it", error)
    if found:
        raise LoopAnimateError(
            f"none of the {len(found)} checkpoints in {run} is complete; move them away to start from the beginning"
        )
    return None


def go_back(run: Path, step: int) -> None:
    """Make the checkpoint of `step` the newest: later ones are moved into the run's folder `later`.

    Raises:
        LoopAnimateError: there is no complete checkpoint of that step, or the later ones cannot be moved.
    """
    target = run / f"{PREFIX}{step:08d}"
    if not target.is_dir():
        there = ", ".join(str(int(path.name.removeprefix(PREFIX))) for path in checkpoints(run))
        raise LoopAnimateError(
            f"{run} has no checkpoint of step {step}; it has {there or 'none'} (save.keep)"
        )
    load_checkpoint(target)
    aside = run / LATER
    try:
        for path in checkpoints(run):
            if path.name > target.name:
                aside.mkdir(exist_ok=True)
                shutil.rmtree(aside / path.name, ignore_errors=True)  # of an earlier time
                os.replace(path, aside / path.name)
    except OSError as error:
        raise LoopAnimateError(f"cannot move checkpoints to {aside}: {error.strerror}") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint after checking every hash. Paths in its settings are those that hold now.

    Raises:
        LoopAnimateError: a file is missing, cut off or changed.
    """
    try:
        _check_hashes(path)
        state = _read_json(path / STATE)
        optimizer = read_pickle(path / OPTIMIZER)
        if not isinstance(optimizer, dict):
            raise MalformedError("the optimiser's state is not a dictionary")
        return Checkpoint(
            step=state.whole("step", 0, 2**53),
            config=relocated(state.fields("config").values, path.parent),
            weights=load_file(path / WEIGHTS),
            average=load_file(path / AVERAGE),
            optimizer=optimizer,
            mean_loss=_mean_loss(state),
            loss_scale=_loss_scale(state),
            origin=_origin(state),
        )
    except LoopAnimateError as error:
        raise LoopAnimateError(f"{path} is not a complete checkpoint ({error})") from error
    except (OSError, SafetensorError, RuntimeError) as error:
        raise LoopAnimateError(f"{path} is not a complete checkpoint ({error})") from error


def _read_json(path: Path) -> Fields:
    content = read_file(path, "file", MAX_JSON_BYTES)
    return Fields(parse_json(content, path.name, finite=False), path.name)


def _mean_loss(state: Fields) -> float | None:
    value = state.values.get("mean_loss")
    if value is not None and not isinstance(value, (int, float)):
        raise MalformedError("'mean_loss' must be a number or null")
    return value


def _loss_scale(state: Fields) -> tuple[float, int] | None:
    if "loss_scale" not in state:
        return None
    pair = state.items("loss_scale", 2)
    if len(pair) != 2:
        raise MalformedError("'loss_scale' must be a factor and a number of steps")
    values = Fields({"factor": pair[0], "steps": pair[1]}, "'loss_scale'")
    return values.number("factor", 0, 1e30), values.whole("steps", 0, 2**53)


def _origin(state: Fields) -> dict[str, str]:
    origin = state.fields("origin", {})
    return {name: origin.text(name) for name in origin}


def _check_hashes(path: Path) -> None:
    try:
        manifest = _read_json(path / MANIFEST)
    except LoopAnimateError as error:
        raise LoopAnimateError(f"{path / MANIFEST} is damaged ({error})") from error
    missing = {WEIGHTS, AVERAGE, OPTIMIZER, STATE} - set(manifest)
    if missing:
        raise LoopAnimateError(f"{path / MANIFEST} is damaged (it lacks {min(missing)})")
    if len(manifest.values) > MAX_FILES:
        raise LoopAnimateError(f"{path / MANIFEST} is damaged (it lists too many files)")
    for name in manifest:
        if name != Path(name).name or plain_text(name) != name:
            raise LoopAnimateError(
                f"{path / MANIFEST} is damaged (it names {plain_text(name, 80)!r})"
            )
        require_file(path / name, "file of a checkpoint")
        if _sha256(path / name) != manifest.values[name]:
            raise LoopAnimateError(f"{path / name} is damaged (its SHA-256 is not the manifest's)")


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    for name, tensors in ((WEIGHTS, checkpoint.weights), (AVERAGE, checkpoint.average)):
        write_tensors(folder / name, tensors, {"format": "pt"})
    torch.save(checkpoint.optimizer, folder / OPTIMIZER)
    state = {
        "step": checkpoint.step,
        "config": checkpoint.config,
        "mean_loss": checkpoint.mean_loss,
        "loss_scale": checkpoint.loss_scale,
        "origin": checkpoint.origin,
    }
    (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    manifest = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    mode = 0o666 & ~umask()  # safetensors makes files private
    for path in folder.iterdir():
        path.chmod(mode)
        _sync(path)
    _sync(folder)


def _put_in_place(partial: Path, target: Path) -> None:
    """Rename, after moving away an earlier checkpoint of this step, which must be damaged."""
    replaced = target.with_name(f"{REPLACED}{partial.name.removeprefix(PARTIAL)}")
    if target.exists():
        os.replace(target, replaced)
    os.replace(partial, target)
    shutil.rmtree(replaced, ignore_errors=True)


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
