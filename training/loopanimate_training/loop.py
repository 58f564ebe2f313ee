"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from loopanimate_core.bundle import Bundle
from loopanimate_core.errors import LoopAnimateError

from .config import RunConfig, require_same_run
from .data.batch import Batch
from .data.clip_encoder import ClipEncoder
from .data.latent_cache import LatentCache
from .data.loader import ClipLoader
from .data.source import open_source, open_validation_source
from .distributed.fsdp import divided_state, whole
from .distributed.launch import distribute, start_processes, use_memory_settings, wants_shards
from .model.losses import DiffusionLoss
from .model.optim import Ema, make_optimizer, set_learning_rate
from .model.precision import StepGuard, autocast, shrink_frozen, sound_kernels
from .model.start import load_weights, named_parameters, open_start, trained_parameters
from .run.heartbeat import DRAWING, FAILED, FINISHED, STARTING, STOPPED, Heartbeat
from .run.log import RunLog
from .run.origin import origin_of, require_agreement, require_same_origin
from .run.report import write_page
from .run.requests import Request, Requests, caught_signals
from .run.saver import Saver
from .run.validation import SheetMaker
from .storage.checkpoint import Checkpoint, load_latest, remove_leftovers

NOT_SAVED, ASKED_TO_QUIT = 74, 75  # exit codes: EX_IOERR and EX_TEMPFAIL of sysexits.h


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with its last step, or by the last `request`. `saved` is False when it was stopped
    while it waited for a disk that did not take its checkpoint."""

    step: int
    steps: int
    request: Request = field(default_factory=Request)
    saved: bool = True

    @property
    def exit_code(self) -> int:
        """Of the process: 0 finished, 74 not saved, 75 asked to quit by a file, 128 + signal."""
        if not self.saved:
            return NOT_SAVED
        if self.step == self.steps or not self.request.stops:
            return 0
        number = self.request.signal_number
        return 128 + number if number else ASKED_TO_QUIT


def train(config: RunConfig, *, allow_change: bool = False) -> Outcome:
    """Run, or go on with, the training that `config` describes, until its last step or a request to stop.

    Raises:
        LoopAnimateError: unusable data or start, a folder that holds another run (unless `allow_change`),
            processes that found different things, gradients that stay non-finite.
    """
    accelerator = start_processes(config)
    is_main = accelerator.is_main_process
    with Heartbeat(config.out, config.steps, is_main) as heartbeat:
        with heartbeat.during(STARTING):
            run = open_run(config, accelerator, allow_change)
        state = run.state
        with (
            caught_signals() as caught,
            RunLog(
                config.out, config.steps, state.step, state.mean_loss, is_main, config.tensorboard
            ) as log,
            run.loader.batches(state.step) as batches,
            sound_kernels(config.precision, accelerator.device),
        ):
            if is_main:
                remove_leftovers(config.out)
            requests = Requests(accelerator, config.out, caught)
            try:
                outcome = take_steps(run, batches, requests, heartbeat, log)
                heartbeat.beat(state.step, STOPPED if outcome.exit_code else FINISHED)
            except BaseException:
                heartbeat.beat(state.step, FAILED)
                raise
            finally:  # what happened is worth a page, whatever it was
                if is_main:
                    write_report(config, log)
            accelerator.wait_for_everyone()  # a launcher ends all once one has ended
    return outcome


def take_steps(
    run: Run,
    batches: Iterator[list[Batch]],
    requests: Requests,
    heartbeat: Heartbeat,
    log: RunLog,
) -> Outcome:
    """Step after step: gradients, the optimiser, the average; then log, save, show."""
    config, state = run.config, run.state
    saver = Saver(config, requests, heartbeat, log)
    request, saved = Request(), True
    while state.step < config.steps:
        began = time.perf_counter()
        heartbeat.beat(state.step)
        lr = set_learning_rate(state.optimizer, config.optimizer, state.step, config.steps)
        loss, grad_norm = accumulate_gradients(run.accelerator, run.model, next(batches), state)
        if state.guard.accepts(grad_norm):
            state.optimizer.step()
            state.ema.update(state.step)
        else:
            log.leave_out(state.step, state.guard.scale, run.loader.clip_names(state.step))
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1

        clips_per_s = config.batch.clips / (time.perf_counter() - began)
        state.mean_loss = log.step(loss.item(), clips_per_s)
        at_end = state.step == config.steps
        if state.step % config.log_every_steps == 0 or at_end:
            log.write(
                {"step": state.step, "loss": loss.item(), "mean_loss": state.mean_loss, "lr": lr,
                 "grad_norm": grad_norm.item(), "clips_per_s": round(clips_per_s, 3), "time": round(time.time(), 1)}
            )  # fmt: skip
        request = requests.poll()
        if state.step % config.save.every_steps == 0 or at_end or request.saves:
            needed = requests.is_main or run.sharded
            saved = saver.save(state.step, state.checkpoint() if needed else None)
            request = requests.poll()  # one that came meanwhile
            requests.done(request)
        if request.stops:
            break
        if config.sheets.every_steps and state.step % config.sheets.every_steps == 0:
            with heartbeat.during(DRAWING):
                draw_sheet(run, log)
    return Outcome(state.step, config.steps, request, saved)


@dataclass
class Run:
    """What a training works with."""

    config: RunConfig
    accelerator: Accelerator
    loader: ClipLoader
    model: Any
    state: State
    sheets: SheetMaker
    sharded: bool


def open_run(config: RunConfig, accelerator: Accelerator, allow_change: bool) -> Run:
    """The networks, the data and the optimiser, as the newest whole checkpoint has them if there is one."""
    sharded = wants_shards(accelerator)
    if sharded and config.sheets.every_steps:
        raise LoopAnimateError("sheets cannot be drawn under FSDP; set sheets.every_steps to 0")
    earlier = load_latest(config.out)
    if earlier is not None and not allow_change:
        require_same_run(earlier.config, config)
    bundle = open_start(config.model, config.seed)
    trained = trained_parameters(bundle, config.model)
    loader = make_loader(config, bundle, accelerator)
    origin = origin_of(bundle, trained, loader.cache)
    if earlier is not None and not allow_change:
        require_same_origin(earlier.origin, origin, config.out)
    require_agreement(accelerator, 0 if earlier is None else earlier.step, origin)
    if earlier is not None:
        load_weights(bundle, earlier.weights)
    model = distribute(accelerator, make_loss(config, bundle).to(accelerator.device))
    present = named_parameters(bundle)  # FSDP has put others in the place of those above
    parameters = {name: present[name] for name in trained}
    optimizer = make_optimizer(parameters, config.optimizer)
    ema, guard = Ema(parameters, config.optimizer.ema_decay), StepGuard(config.precision)
    state = State(config, origin, parameters, optimizer, ema, guard)
    if earlier is not None:
        state.restore(earlier)
    validation = open_validation_source(config.data, config.clip, loader.cache.source)
    sheets = SheetMaker(config, bundle, validation)
    return Run(config, accelerator, loader, model, state, sheets, sharded)


def draw_sheet(run: Run, log: RunLog) -> None:
    """Loops drawn from the averaged weights, a share by every process, and the run's page with them."""
    config, state, accelerator = run.config, run.state, run.accelerator
    with (
        run.loader.cache.encoder.on_device(restore=True),
        autocast(config.precision, accelerator.device),
    ):
        log.attempt("sheet", lambda: run.sheets.draw(state.ema, state.step, accelerator))
    if accelerator.is_main_process:
        write_report(config, log)


def write_report(config: RunConfig, log: RunLog) -> None:
    """The run's page, as things stand."""
    settings = config.model_dump(mode="json")
    log.attempt("report", lambda: write_page(config.out, settings=settings))


@dataclass
class State:
    """What changes in a run; randomness does not, it is a function of the step."""

    config: RunConfig
    origin: dict[str, str]
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: Ema
    guard: StepGuard
    step: int = 0
    mean_loss: float | None = None

    def checkpoint(self) -> Checkpoint:
        """A copy on the CPU; with FSDP every process must call it."""
        return Checkpoint(
            step=self.step,
            config=self.config.model_dump(mode="json"),
            origin=self.origin,
            weights=whole(dict(self.parameters)),
            average=whole(self.ema.average),
            optimizer=whole(self.optimizer.state_dict()),
            mean_loss=self.mean_loss,
            loss_scale=self.guard.state(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over all but the weights, which were in place before the optimiser was made."""
        in_order = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.optimizer.load_state_dict(divided_state(checkpoint.optimizer, in_order))
        self.ema.load(checkpoint.average)
        self.guard.restore(checkpoint.loss_scale)
        self.step, self.mean_loss = checkpoint.step, checkpoint.mean_loss


def make_loader(config: RunConfig, bundle: Bundle, accelerator: Accelerator) -> ClipLoader:
    """Source, encoders and cache of a run, and this process's share of it."""
    encoder = ClipEncoder(bundle, config, accelerator.device)
    cache = LatentCache(open_source(config.data, config.clip), encoder, config.data.cache)
    return ClipLoader(
        config, cache, bundle.config.schedule.num_train_timesteps,
        rank=accelerator.process_index, world=accelerator.num_processes,
        quarantine=config.out / "quarantine.jsonl",
    )  # fmt: skip


def make_loss(config: RunConfig, bundle: Bundle) -> DiffusionLoss:
    """The networks with the objective around them."""
    use_memory_settings(bundle.unet, config.model)
    shrink_frozen(bundle.unet, config.precision)
    if config.model.channels_last:
        bundle.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    text_encoder = bundle.text_encoder if config.model.train_text_encoder else None
    return DiffusionLoss(bundle.unet, text_encoder, bundle.config.schedule, config.loss)


def accumulate_gradients(
    accelerator: Accelerator, model: Any, batches: list[Batch], state: State
) -> tuple[Tensor, Tensor]:
    """Gradients of the mean loss over all micro-batches and processes; returns it and the gradient norm."""
    config, parameters = state.config, list(state.parameters.values())
    device, total = accelerator.device, torch.zeros((), device=accelerator.device)
    for i, batch in enumerate(batches):
        last = i == len(batches) - 1
        copies = isinstance(model, DistributedDataParallel)  # shards add up every time
        with model.no_sync() if copies and not last else nullcontext():
            with autocast(config.precision, device):
                loss = model(batch.to(device)) / len(batches)
            (loss * state.guard.scale).backward()
        total += loss.detach()
    state.guard.unscale(parameters)
    norm = whole(nn.utils.clip_grad_norm_(parameters, config.optimizer.clip_norm))
    return accelerator.reduce(total, "mean"), norm  # type: ignore[return-value]
