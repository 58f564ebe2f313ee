"""Opening a run: the networks, the data and the optimiser, new or as the newest checkpoint has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from loopanimate_core.bundle import Bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNet

from .config import RunConfig, require_same_run, stored_settings
from .data.clip_encoder import ClipEncoder
from .data.latent_cache import LatentCache
from .data.loader import ClipLoader
from .data.opening import open_source, open_validation_source
from .distributed.fsdp import full_tensors, shard_optimizer_state
from .distributed.launch import uses_fsdp, wrap_model
from .model.distillation import DistillationLoss, empty_prompt, guidance_range, open_teacher
from .model.losses import DiffusionLoss
from .model.precision import StepGuard
from .model.start import open_start
from .model.switches import use_memory_switches, use_speed_switches
from .model.weights import load_weights, named_parameters, trained_parameters
from .optimizer import Ema, make_optimizer
from .run.origin import MASKS, origin_of, require_agreement, require_same_origin
from .run.validation import Validator
from .run.validation_loss import ValidationLoss
from .storage.checkpoint import Checkpoint, load_latest


@dataclass
class Run:
    """Everything a training run works with."""

    config: RunConfig
    accelerator: Accelerator
    loader: ClipLoader
    model: Any
    state: State
    validator: Validator
    validation_loss: ValidationLoss | None
    sharded: bool


@dataclass
class State:
    """What changes during a run. Random draws are functions of the step and need no state."""

    config: RunConfig
    origin: dict[str, str]
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: Ema
    guard: StepGuard
    step: int = 0
    mean_loss: float | None = None

    def checkpoint(self) -> Checkpoint:
        """A copy on the CPU, which training does not change; with FSDP all processes must call it."""
        return Checkpoint(
            step=self.step,
            config=stored_settings(self.config),
            origin=self.origin,
            weights=full_tensors(dict(self.parameters)),
            average=full_tensors(self.ema.average),
            optimizer=full_tensors(self.optimizer.state_dict()),
            mean_loss=self.mean_loss,
            loss_scale=self.guard.state(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore everything but the weights, which were loaded before the optimiser was made."""
        in_order = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.optimizer.load_state_dict(shard_optimizer_state(checkpoint.optimizer, in_order))
        self.ema.load(checkpoint.average)
        self.guard.restore(checkpoint.loss_scale)
        self.step, self.mean_loss = checkpoint.step, checkpoint.mean_loss


def open_run(config: RunConfig, accelerator: Accelerator, allow_change: bool) -> Run:
    """Set up a run, and restore its newest complete checkpoint if there is one.

    Raises:
        LoopAnimateError: unusable data or start, or the folder holds another run (unless `allow_change`).
    """
    sharded = uses_fsdp(accelerator)
    if sharded and config.validation.every_steps:
        raise LoopAnimateError(
            "validation does not work under FSDP; set validation.every_steps to 0"
        )
    earlier = load_latest(config.out)
    if earlier is not None and not allow_change:
        require_same_run(earlier.config, config)
    bundle = open_start(config.model, config.seed)
    teacher = None if config.distil is None else open_teacher(config, bundle)
    trained = trained_parameters(bundle, config.model)
    loader = make_loader(config, bundle, accelerator)
    source = loader.cache.source
    origin = origin_of(bundle, trained, source, teacher, loader.cache.encoder.finder)
    if earlier is not None and MASKS not in earlier.origin and config.data.saliency is None:
        # It began in a version that did not note what finds objects, and goes on with the masks in its cache.
        origin.pop(MASKS, None)
        loader.cache.keeps_masks = True
    if earlier is not None and not allow_change:
        require_same_origin(earlier.origin, origin, config.out)
    require_agreement(accelerator, 0 if earlier is None else earlier.step, origin)
    if earlier is not None:
        load_weights(bundle, earlier.weights)
    loss = make_loss(config, bundle, teacher).to(accelerator.device)
    model = wrap_model(accelerator, loss)
    present = named_parameters(bundle)  # FSDP has replaced those of `trained`
    parameters = {name: present[name] for name in trained}
    optimizer = make_optimizer(parameters, config.optimizer)
    ema, guard = Ema(parameters, config.optimizer.ema_decay), StepGuard(config.precision)
    if isinstance(loss, DistillationLoss):
        loss.follow(ema)
    state = State(config, origin, parameters, optimizer, ema, guard)
    if earlier is not None:
        state.restore(earlier)
    held_out = open_validation_source(config.data, config.clip, source)
    validator = Validator(config, bundle, held_out, loader.cache.encoder.finder)
    validation_loss = None
    if config.validation.loss_clips:
        cache = LatentCache(held_out, loader.cache.encoder, config.data.cache)
        cache.keeps_masks = loader.cache.keeps_masks
        validation_loss = ValidationLoss(config, cache, loader.timesteps)
    return Run(config, accelerator, loader, model, state, validator, validation_loss, sharded)


def make_loader(config: RunConfig, bundle: Bundle, accelerator: Accelerator) -> ClipLoader:
    """Source, encoders and cache of a run, and the loader of this process's share of the clips."""
    encoder = ClipEncoder(bundle, config, accelerator.device)
    cache = LatentCache(open_source(config.data, config.clip), encoder, config.data.cache)
    return ClipLoader(
        config,
        cache,
        bundle.config.schedule.num_train_timesteps,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        quarantine=config.out / "quarantine.jsonl",
    )


def make_loss(
    config: RunConfig, bundle: Bundle, teacher: LoopUNet | None = None
) -> DiffusionLoss | DistillationLoss:
    """The networks that train, with the loss around them and the run's memory and speed switches set.

    Args:
        teacher: for a run that distils.
    """
    for unet in (bundle.unet, teacher):
        if unet is not None:
            use_memory_switches(unet, config.model, config.precision)
            use_speed_switches(unet, config.model)
    if config.distil is not None:
        assert teacher is not None
        return DistillationLoss(
            bundle.unet,
            teacher,
            empty_prompt(bundle),
            bundle.config.schedule,
            config.distil,
            guidance_range(config.distil, bundle),
        )
    text_encoder = bundle.text_encoder if config.model.train_text_encoder else None
    return DiffusionLoss(bundle.unet, text_encoder, bundle.config.schedule, config.loss)
