"""The bundle that a run starts from, which may be what an earlier run has trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from loopanimate_core.bundle import Bundle, read_bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNet, LoopUNetConfig

from ..config import ModelConfig, RunConfig, parse
from ..storage.checkpoint import Checkpoint, is_checkpoint, load_checkpoint, load_latest
from .lora import add_adapters, merge_adapters
from .weights import load_weights

# Settings that say nothing about the model; `sheets` is the former name of `validation`.
NOT_IN_PROVENANCE = ("out", "save", "validation", "sheets", "device")
DATA_FOLDERS = ("root", "masks", "cache", "index")


def open_start(model: ModelConfig, seed: int) -> Bundle:
    """The bundle a run starts from, in float32 on the CPU.

    For a checkpoint, or a run's folder (its newest checkpoint), that is the bundle of that run's start with
    the averaged weights. With `model.lora`, new adapters are added to its UNet.
    """
    found = find_checkpoint(model.start)
    if found is None:
        bundle = without_few_steps(read_bundle(model.start))
    else:
        earlier = parse(found.config)
        bundle = open_start(earlier.model, earlier.seed)
        load_weights(bundle, found.average)
        merge_adapters(bundle.unet)
        bundle.config = dataclasses.replace(bundle.config, frames=trained_frames(bundle, earlier))
        bundle.provenance = add_provenance(bundle.provenance, found)
    if bundle.config.conditioning != "loop":
        raise LoopAnimateError(
            f"model.start {model.start} has the conditioning {bundle.config.conditioning!r}, which is not trained"
            " here; assemble it with `loopanimate convert assemble --conditioning loop`"
        )
    if model.unet is not None:
        bundle = _with_new_unet(bundle, LoopUNetConfig.from_dict(model.unet), seed)
    changes = {
        name: value
        for name in ("prediction_type", "still_prior")
        if (value := getattr(model, name)) is not None
    }
    schedule = dataclasses.replace(bundle.config.schedule, **changes)
    bundle.config = dataclasses.replace(bundle.config, schedule=schedule)
    if model.routing is not None:
        bundle.unet.config = dataclasses.replace(bundle.unet.config, routing=model.routing)
        bundle.config = dataclasses.replace(bundle.config, unet=bundle.unet.config)
    if model.lora is not None:
        add_adapters(bundle.unet, model.lora, seed)
    return bundle


def without_few_steps(bundle: Bundle) -> Bundle:
    """The bundle without its few-step weights, which do not fit a network that trains further."""
    defaults = dataclasses.replace(bundle.config.defaults, fast=None)
    config = dataclasses.replace(bundle.config, defaults=defaults)
    return dataclasses.replace(bundle, config=config, few_steps={})


def find_checkpoint(path: Path) -> Checkpoint | None:
    """A checkpoint, or the newest complete one in a run's folder; None when `path` is neither.

    Raises:
        LoopAnimateError: the checkpoint, or every checkpoint of the run, is damaged.
    """
    return load_checkpoint(path) if is_checkpoint(path) else load_latest(path)


def trained_frames(start: Bundle, run: RunConfig) -> tuple[int, ...]:
    """The clip lengths a run's network was trained on: its own, and those of its start unless that was random."""
    earlier = () if run.model.unet is not None else start.config.frames
    return tuple(sorted({*earlier, run.clip.frames}))


def add_provenance(provenance: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """A bundle's provenance with one more run: its settings, without the folders of the machine."""
    config = checkpoint.config
    run = {key: value for key, value in config.items() if key not in NOT_IN_PROVENANCE}
    run["data"] = {key: value for key, value in config["data"].items() if key not in DATA_FOLDERS}
    for section, key in (
        ("model", "start"),
        ("data", "path"),
        ("data", "saliency"),
        ("distil", "teacher"),
    ):
        if (path := (run.get(section) or {}).get(key)) is not None:
            run[section] = {**run[section], key: Path(path).name}
    run["steps_taken"] = checkpoint.step
    return {**provenance, "training": [*provenance.get("training", []), run]}


def _with_new_unet(bundle: Bundle, config: LoopUNetConfig, seed: int) -> Bundle:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = LoopUNet(config)
        unet.zero_motion()
    return dataclasses.replace(
        bundle, unet=unet, config=dataclasses.replace(bundle.config, unet=config)
    )
