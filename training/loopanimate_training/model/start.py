"""Where a run starts: a bundle, or what an earlier run made of one, and which of its weights train."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopanimate_core.bundle import Bundle, read_bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNet, LoopUNetConfig
from loopanimate_core.models.parts import is_idle, part_of

from ..config import ModelConfig, RunConfig, parse
from ..storage.checkpoint import Checkpoint, is_checkpoint, load_checkpoint, load_latest
from .lora import add_adapters, is_adapter, merge_adapters

ALL = "all"


def open_start(model: ModelConfig, seed: int) -> Bundle:
    """The bundle a run starts from, in float32 on the CPU.

    A checkpoint, or a run's folder (its newest checkpoint), is that run's own start with the averaged
    weights of its trained parts. With `model.lora`, new adapters hang on its UNet.
    """
    found = find_checkpoint(model.start)
    if found is None:
        bundle = read_bundle(model.start)
    else:
        earlier = parse(found.config)
        bundle = open_start(earlier.model, earlier.seed)
        load_weights(bundle, found.average)
        merge_adapters(bundle.unet)
        bundle.config = dataclasses.replace(bundle.config, frames=trained_frames(bundle, earlier))
        bundle.provenance = with_run(bundle.provenance, found)
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


def find_checkpoint(path: Path) -> Checkpoint | None:
    """A checkpoint, or the newest whole one of a run's folder; None: `path` is neither.

    Raises:
        LoopAnimateError: the checkpoint, or every one of the run, is damaged.
    """
    return load_checkpoint(path) if is_checkpoint(path) else load_latest(path)


def trained_frames(start: Bundle, run: RunConfig) -> tuple[int, ...]:
    """The clip lengths that a run's network knows: those of its start, unless it was new, and its own."""
    known = () if run.model.unet is not None else start.config.frames
    return tuple(sorted({*known, run.clip.frames}))


def with_run(provenance: Mapping[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """A bundle's provenance with one more run: its settings, without the folders of the machine."""
    config = checkpoint.config
    run = {
        key: value
        for key, value in config.items()
        if key not in ("out", "save", "sheets", "device")
    }
    run["model"] = {**config["model"], "start": Path(config["model"]["start"]).name}
    folders = ("root", "masks", "cache", "index")
    run["data"] = {key: value for key, value in config["data"].items() if key not in folders}
    run["data"]["path"] = Path(config["data"]["path"]).name
    run["steps_taken"] = checkpoint.step
    return {**provenance, "training": [*provenance.get("training", []), run]}


def trained_parameters(bundle: Bundle, model: ModelConfig) -> dict[str, nn.Parameter]:
    """Freeze the bundle but for the parts in `model.train` and adapters, and return those by name.

    Left out are weights without effect (queries and keys of attention to one token): they would get no
    gradient.

    Raises:
        LoopAnimateError: a part without any weight, or nothing to train at all.
    """
    for module in (bundle.unet, bundle.vae, bundle.text_encoder, bundle.image_encoder):
        module.requires_grad_(False).eval()
    chosen = {f"unet.{name}": p for name, p in chosen_parameters(bundle.unet, model).items()}
    if model.train_text_encoder:
        chosen.update({f"text_encoder.{n}": p for n, p in bundle.text_encoder.named_parameters()})
    if not chosen:
        raise LoopAnimateError(
            "nothing is to be trained: model.train is empty and there is no model.lora"
        )
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def chosen_parameters(unet: LoopUNet, model: ModelConfig) -> dict[str, nn.Parameter]:
    """The UNet's parameters that `model` trains, adapters among them.

    Raises:
        LoopAnimateError: a part without any weight.
    """
    chosen: dict[str, nn.Parameter] = {}
    for part in model.train:
        found = {
            name: parameter
            for name, parameter in unet.named_parameters()
            if in_part(name, part) and not is_idle(name, unet.config)
        }
        if not found:
            raise LoopAnimateError(f"the network has no weights in a part {part!r}")
        chosen.update(found)
    return chosen | {name: p for name, p in unet.named_parameters() if is_adapter(name)}


def in_part(name: str, part: str) -> bool:
    """Whether a UNet parameter belongs to `part`: a name of `part_of`, `temm` with its projections, or `all`."""
    own = part_of(name)
    return part == ALL or own == part or own.startswith(f"{part}.")


def named_parameters(bundle: Bundle) -> dict[str, nn.Parameter]:
    """The parameters that a run may train, by the names that checkpoints have: `unet.…`, `text_encoder.…`."""
    own = {f"unet.{n}": p for n, p in bundle.unet.named_parameters()}
    own.update({f"text_encoder.{n}": p for n, p in bundle.text_encoder.named_parameters()})
    return own


@torch.no_grad()
def load_weights(bundle: Bundle, weights: Mapping[str, Tensor]) -> None:
    """Overwrite named parameters (`unet.…`, `text_encoder.…`) of a bundle.

    Raises:
        LoopAnimateError: a name or shape that the bundle does not have.
    """
    own = named_parameters(bundle)
    for name, tensor in weights.items():
        if name not in own or own[name].shape != tensor.shape:
            raise LoopAnimateError(f"the weights {name} {list(tensor.shape)} do not fit the bundle")
        own[name].copy_(tensor)


def _with_new_unet(bundle: Bundle, config: LoopUNetConfig, seed: int) -> Bundle:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = LoopUNet(config)
        unet.zero_motion()
    return dataclasses.replace(
        bundle, unet=unet, config=dataclasses.replace(bundle.config, unet=config)
    )
