"""Exporting a checkpoint: as a bundle, as a delta to the bundle it started from, or as a LoRA.

All hold averaged weights.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from loopanimate_core.bundle import Bundle, add_few_steps, bundle_info, write_bundle
from loopanimate_core.bundle.components import PARTS, classic_names, state_of
from loopanimate_core.bundle.delta import write_delta
from loopanimate_core.bundle.few_steps import few_step_tensors
from loopanimate_core.bundle.lora import write_lora
from loopanimate_core.bundle.tensorfile import open_tensors
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import partial_folder
from loopanimate_core.settings import FewSteps

from ..config import RunConfig, parse
from ..storage.checkpoint import Checkpoint
from .lora import ADAPTER, adapter_updates, is_adapter, merge_adapters
from .start import add_provenance, find_checkpoint, open_start, trained_frames
from .weights import FROZEN, frozen_hash, load_weights


def export_bundle(checkpoint: Path, target: Path, dtype: torch.dtype = torch.float16) -> int:
    """Write the bundle of a checkpoint, or of the newest complete one in a run's folder; returns its step.

    Raises:
        LoopAnimateError: there is no complete checkpoint, its start is gone, or the bundle cannot be written.
    """
    found, config = read_run(checkpoint)
    bundle = trained_bundle(found, config)
    merge_adapters(bundle.unet)
    write_bundle(target, bundle, dtype, title=config.title or None, license=config.license or None)
    return found.step


def export_delta(
    checkpoint: Path, target: Path, base: Path, dtype: torch.dtype = torch.float16
) -> int:
    """Write what a run changed in `base`, the bundle it started from; returns the checkpoint's step.

    Raises:
        LoopAnimateError: as `export_bundle`, or the run did not start from `base`.
    """
    found, config = read_run(checkpoint)
    bundle = trained_bundle(found, config)
    merge_adapters(bundle.unet)
    tensors = {
        f"{part}.{name}": tensor
        for part in PARTS
        for name, tensor in state_of(part, bundle.module(part)).items()
    }
    changed = set(changed_tensors(found.average))
    _require_started_from(base, {k: t for k, t in tensors.items() if k not in changed})
    write_delta(
        target,
        {name: tensors[name] for name in sorted(changed)},
        base,
        bundle.config,
        bundle.provenance,
        dtype,
        title=config.title or None,
        license=config.license or None,
    )
    return found.step


def export_lora(checkpoint: Path, target: Path, dtype: torch.dtype = torch.float16) -> int:
    """Write a checkpoint's adapters as a LoRA with kohya's names, which ComfyUI reads; returns the step.

    Raises:
        LoopAnimateError: as `export_bundle`, or the run trained more than adapters.
    """
    found, config = read_run(checkpoint)
    others = [name for name in found.average if not is_adapter(name)]
    if config.model.lora is None or others:
        trained = f"also {others[0]}" if others else "no adapters"
        raise LoopAnimateError(
            f"{checkpoint} trained {trained}; a LoRA needs model.lora and model.train: []"
        )
    bundle = trained_bundle(found, config)
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config.model.lora.rank),
        "ss_network_alpha": str(config.model.lora.alpha),
        "ss_base_model_version": "loopanimate-v1",
        "modelspec.architecture": "loopanimate-v1/lora",
        "modelspec.title": config.title or target.stem,
        "loopanimate.training": json.dumps(bundle.provenance["training"][-1]),
    }
    write_lora(target, adapter_updates(bundle.unet), metadata, dtype)
    return found.step


def export_few_steps(
    checkpoint: Path, target: Path, base: Path | None = None, dtype: torch.dtype = torch.float16
) -> int:
    """Write the bundle that a distillation started from with the few-step weights it made; returns the step.

    Args:
        base: a bundle with the start's UNet and text encoder, to which they are added. None for the start itself.

    Raises:
        LoopAnimateError: as `export_bundle`, or the run does not distil, or `base` has other weights.
    """
    found, config = read_run(checkpoint)
    if config.distil is None:
        raise LoopAnimateError(f"{checkpoint} is not a distillation (stage 4)")
    bundle = trained_bundle(found, config)
    tensors = few_step_tensors(adapter_updates(bundle.unet))
    replaced = {n.removeprefix("unet."): t for n, t in found.average.items() if not is_adapter(n)}
    start = open_start(config.model.model_copy(update={"lora": None}), config.seed)
    if base is None and config.model.start.is_file():
        base = config.model.start
    with partial_folder(Path(tempfile.gettempdir())) as folder:
        if base is None:
            base = folder / "start.safetensors"
            title = config.title or None
            write_bundle(base, start, dtype, title=title, license=config.license or None)
        else:
            networks = ((part, start.module(part)) for part in ("unet", "text_encoder"))
            _require_started_from(
                base,
                {f"{p}.{n}": t for p, module in networks for n, t in state_of(p, module).items()},
            )
        provenance = bundle_info(base).provenance
        provenance = {**provenance, "few_steps": bundle.provenance["training"][-1]}
        # Without a skip the student is the guided teacher, for the sampler that suits it.
        own = start.config.defaults.scheduler
        fast = FewSteps() if config.distil.skip else FewSteps(scheduler=own)
        add_few_steps(base, target, tensors | replaced, fast, provenance, dtype)
    return found.step


def read_run(checkpoint: Path) -> tuple[Checkpoint, RunConfig]:
    """A checkpoint, or the newest complete one in a run's folder, and its settings.

    Raises:
        LoopAnimateError: there is none.
    """
    found = find_checkpoint(checkpoint)
    if found is None:
        raise LoopAnimateError(f"{checkpoint} has no complete checkpoint")
    return found, parse(found.config)


def trained_bundle(found: Checkpoint, config: RunConfig) -> Bundle:
    """The bundle of a run's start with a checkpoint's averaged weights; adapters are not merged yet."""
    bundle = open_start(config.model, config.seed)
    if found.origin.get(FROZEN, "") not in ("", frozen_hash(bundle, found.average)):
        raise LoopAnimateError(
            f"{config.model.start} has changed since the run began: weights that the run did not train are different "
            "now"
        )
    load_weights(bundle, found.average)
    bundle.config = dataclasses.replace(
        bundle.config,
        frames=trained_frames(bundle, config),
        height_px=config.clip.height_px,
        width_px=config.clip.width_px,
        shapes=config.clip.all_shapes if config.clip.shapes else (),
        defaults=dataclasses.replace(bundle.config.defaults, frames=config.clip.frames),
    )
    bundle.provenance = add_provenance(bundle.provenance, found)
    return bundle


def changed_tensors(trained: Iterable[str]) -> list[str]:
    """Names, as in a bundle, of the tensors that trained parameters change: an adapter changes its layer's weight."""
    names = set()
    for name in trained:
        part, _, rest = name.partition(".")
        if is_adapter(name):
            rest = rest.rpartition(f".{ADAPTER}.")[0] + ".weight"
        names.add(f"{part}.{classic_names(part, [rest])[rest]}")
    return sorted(names)


def _require_started_from(base: Path, untouched: dict[str, Tensor]) -> None:
    bundle_info(base)
    with open_tensors(base) as handle:
        for name in set(handle.keys()) & set(untouched):
            stored = handle.get_tensor(name)
            if not torch.equal(untouched[name].to(stored.dtype), stored):
                raise LoopAnimateError(
                    f"the run did not start from {base}: {name} differs, and was not trained"
                )
