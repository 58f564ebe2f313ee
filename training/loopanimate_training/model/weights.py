"""A bundle's weights in training: their names in checkpoints, which of them train, and a hash of the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from loopanimate_core.bundle import Bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNet
from loopanimate_core.models.parts import in_part, is_idle

from ..config import ModelConfig
from ..data.clip_encoder import tensors_hash
from .lora import is_adapter

FROZEN = "frozen"  # names the hash in a checkpoint


def named_parameters(bundle: Bundle) -> dict[str, nn.Parameter]:
    """The parameters that a run may train, by their names in checkpoints: `unet.…`, `text_encoder.…`."""
    own = {f"unet.{n}": p for n, p in bundle.unet.named_parameters()}
    own.update({f"text_encoder.{n}": p for n, p in bundle.text_encoder.named_parameters()})
    return own


@torch.no_grad()
def load_weights(bundle: Bundle, weights: Mapping[str, Tensor]) -> None:
    """Overwrite named parameters (`unet.…`, `text_encoder.…`) of a bundle.

    Raises:
        LoopAnimateError: the bundle has no such name, or another shape.
    """
    own = named_parameters(bundle)
    for name, tensor in weights.items():
        if name not in own or own[name].shape != tensor.shape:
            raise LoopAnimateError(f"the weights {name} {list(tensor.shape)} do not fit the bundle")
        own[name].copy_(tensor)


def trained_parameters(bundle: Bundle, model: ModelConfig) -> dict[str, nn.Parameter]:
    """Freeze everything but the parts in `model.train` and adapters, and return these by name.

    Weights without effect (queries and keys of attention to a single token) are not included: they would
    get no gradient.

    Raises:
        LoopAnimateError: the network has no weights in a part, or nothing trains.
    """
    for module in (bundle.unet, bundle.vae, bundle.text_encoder, bundle.image_encoder):
        module.requires_grad_(False).eval()
    trained = {f"unet.{name}": p for name, p in trained_in_unet(bundle.unet, model).items()}
    if model.train_text_encoder:
        trained.update({f"text_encoder.{n}": p for n, p in bundle.text_encoder.named_parameters()})
    if not trained:
        raise LoopAnimateError("nothing trains: model.train is empty, and there is no model.lora")
    for parameter in trained.values():
        parameter.requires_grad_(True)
    return trained


def trained_in_unet(unet: LoopUNet, model: ModelConfig) -> dict[str, nn.Parameter]:
    """The UNet's parameters that `model` trains, adapters included.

    Raises:
        LoopAnimateError: the network has no weights in a part.
    """
    trained: dict[str, nn.Parameter] = {}
    for part in model.train:
        found = {
            name: parameter
            for name, parameter in unet.named_parameters()
            if in_part(name, part) and not is_idle(name, unet.config)
        }
        if not found:
            raise LoopAnimateError(f"the network has no weights in the part {part!r}")
        trained.update(found)
    return trained | {name: p for name, p in unet.named_parameters() if is_adapter(name)}


def frozen_hash(bundle: Bundle, trained: Collection[str]) -> str:
    """A hash of all weights that the run uses and that are not in `trained`."""
    encoders = {f"vae.{n}": p for n, p in bundle.vae.named_parameters()}
    encoders |= {f"image_encoder.{n}": p for n, p in bundle.image_encoder.named_parameters()}
    found = sorted((named_parameters(bundle) | encoders).items())
    return tensors_hash((name, tensor) for name, tensor in found if name not in trained)
