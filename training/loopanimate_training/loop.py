"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .config import RunConfig
from .data.batch import Batch
from .data.opening import describe_mix
from .distributed.fsdp import full_tensors
from .distributed.launch import make_accelerator
from .model.precision import autocast, safe_kernels
from .optimizer import set_learning_rate
from .run.heartbeat import FAILED, FINISHED, STARTING, STOPPED, VALIDATING, Heartbeat
from .run.log import RunLog
from .run.report import write_page
from .run.requests import Requests
from .run.saver import Saver
from .run.trackers import TrackerLog, open_trackers
from .setup import Run, open_run
from .signals import Outcome, Request, caught_signals
from .storage.checkpoint import go_back, remove_leftovers


def train(
    config: RunConfig, *, allow_change: bool = False, resume_from: int | None = None
) -> Outcome:
    """Start or resume the run that `config` describes, until its last step or a request to stop.

    Args:
        resume_from: the step of an earlier checkpoint to go back to; later ones are moved aside.

    Raises:
        LoopAnimateError: unusable data or start, a folder that holds another run (unless `allow_change`),
            processes that found different things, gradients that stay non-finite.
    """
    accelerator = make_accelerator(config)
    is_main = accelerator.is_main_process
    with Heartbeat(config.out, config.steps, is_main) as heartbeat:
        with heartbeat.during(STARTING):
            if resume_from is not None:
                if is_main:
                    go_back(config.out, resume_from)
                accelerator.wait_for_everyone()
            run = open_run(config, accelerator, allow_change)
        step, mean_loss = run.state.step, run.state.mean_loss
        trackers = trackers_of(config, step) if is_main else []
        with (
            caught_signals() as caught,
            RunLog(config.out, config.steps, step, mean_loss, is_main, trackers) as log,
            run.loader.batches(step) as batches,
            safe_kernels(config.precision, accelerator.device),
        ):
            if is_main:
                remove_leftovers(config.out)
            for line in describe_mix(config, run.loader.cache.source):
                log.message(line)
            requests = Requests(accelerator, config.out, caught)
            try:
                outcome = take_steps(run, batches, requests, heartbeat, log)
                heartbeat.beat(outcome.step, STOPPED if outcome.exit_code else FINISHED)
            except BaseException:
                heartbeat.beat(run.state.step, FAILED)
                raise
            finally:  # also of a run that failed
                write_report(run, log)
            accelerator.wait_for_everyone()  # a launcher ends all processes once one has ended
    return outcome


def trackers_of(config: RunConfig, step: int) -> list[TrackerLog]:
    """TensorBoard and other trackers of a run that starts or resumes at `step`."""
    settings = config.model_dump(mode="json")
    return open_trackers(config.out, step, config.tensorboard, config.tracker, settings)


def take_steps(
    run: Run,
    batches: Iterator[list[Batch]],
    requests: Requests,
    heartbeat: Heartbeat,
    log: RunLog,
) -> Outcome:
    """Step after step: train, log, then save and validate when due."""
    config, state = run.config, run.state
    request, saved = Request(), True
    waits_s: list[float] = []  # of the steps since the last row of the log
    with Saver(config, requests, heartbeat, log) as saver:
        while state.step < config.steps:
            heartbeat.beat(state.step)
            result = take_step(run, batches, log)
            at_end = state.step == config.steps
            state.mean_loss = log.advance(result.loss, result.clips_per_s)
            waits_s.append(result.data_wait_s)
            if state.step % config.log_every_steps == 0 or at_end:
                log_step(run, result, sum(waits_s) / len(waits_s), log)
                waits_s.clear()
            request = requests.poll(saver.failed)
            due = state.step % config.save.every_steps == 0
            gathers = requests.is_main or run.sharded
            if at_end or request.saves or (due and not config.save.background):
                saved = saver.save(state.step, state.checkpoint() if gathers else None)
                request = requests.poll()  # includes requests made during the save
                requests.clear(request)
            elif due:
                saver.start(state.checkpoint() if gathers else None)
            if request.stops:
                break
            if config.validation.every_steps and state.step % config.validation.every_steps == 0:
                with heartbeat.during(VALIDATING):
                    validate(run, log)
    return Outcome(state.step, config.steps, request, saved)


@dataclass(frozen=True)
class StepResult:
    """The numbers of one step; the loss is the mean over all processes."""

    loss: float
    grad_norm: float
    lr: float
    clips_per_s: float
    data_wait_s: float


def take_step(run: Run, batches: Iterator[list[Batch]], log: RunLog) -> StepResult:
    """One optimiser step: gradients, weights, averaged weights."""
    config, state = run.config, run.state
    began = time.perf_counter()
    lr = set_learning_rate(state.optimizer, config.optimizer, state.step, config.steps)
    ready = next(batches)
    data_wait_s = time.perf_counter() - began
    loss, grad_norm = accumulate_gradients(run, ready)
    if state.guard.accepts(grad_norm):
        state.optimizer.step()
        state.ema.update(state.step)
    else:
        log.skip_step(state.step, state.guard.scale, run.loader.clip_names(state.step))
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    clips_per_s = config.batch.clips / (time.perf_counter() - began)
    return StepResult(loss.item(), grad_norm.item(), lr, clips_per_s, data_wait_s)


def accumulate_gradients(run: Run, batches: list[Batch]) -> tuple[Tensor, Tensor]:
    """Gradients of the mean loss over all micro-batches and processes; returns that loss and the gradient norm."""
    config, guard, device = run.config, run.state.guard, run.accelerator.device
    parameters, total = list(run.state.parameters.values()), torch.zeros((), device=device)
    for i, batch in enumerate(batches):
        last = i == len(batches) - 1
        # DDP adds up gradients over processes in the last backward pass only; FSDP in each.
        waits = isinstance(run.model, DistributedDataParallel) and not last
        with run.model.no_sync() if waits else nullcontext():
            with autocast(config.precision, device):
                loss = run.model(batch.to(device)) / len(batches)
            (loss * guard.scale).backward()
        total += loss.detach()
    guard.unscale(parameters)
    limit = config.optimizer.clip_norm
    norm = full_tensors(nn.utils.clip_grad_norm_(parameters, math.inf if limit is None else limit))
    return run.accelerator.reduce(total, "mean"), norm  # type: ignore[return-value]


def log_step(run: Run, result: StepResult, data_wait_s: float, log: RunLog) -> None:
    """Append a row to `log.jsonl`; `data_wait_s` is the mean over the steps since the row before."""
    log.write(
        {
            "step": run.state.step,
            "loss": result.loss,
            "mean_loss": run.state.mean_loss,
            "lr": result.lr,
            "grad_norm": result.grad_norm,
            "clips_per_s": round(result.clips_per_s, 3),
            "data_wait_s": round(data_wait_s, 4),
            "time": round(time.time(), 1),
        }
    )


def validate(run: Run, log: RunLog) -> None:
    """Generate the validation loops with the averaged weights, and update the report with them.

    All processes must call it; each generates its share.
    """
    config, state, accelerator = run.config, run.state, run.accelerator
    with (
        run.loader.cache.encoder.on_device(restore=True),
        autocast(config.precision, accelerator.device),
    ):
        log.run_optional(
            "validation loops", lambda: run.validator.validate(state.ema, state.step, accelerator)
        )
        if run.validation_loss is not None:
            log.run_optional("validation loss", lambda: log_validation_loss(run, log))
    write_report(run, log)


def log_validation_loss(run: Run, log: RunLog) -> None:
    """Append a row with the loss on the validation clips; all processes must call it."""
    assert run.validation_loss is not None
    model = run.accelerator.unwrap_model(run.model, keep_torch_compile=True)
    loss = run.validation_loss.measure(model, run.state.ema, run.accelerator)
    log.write({"step": run.state.step, "validation_loss": loss, "time": round(time.time(), 1)})


def write_report(run: Run, log: RunLog) -> None:
    """Write the run's report page, on the first process."""
    if run.accelerator.is_main_process:
        settings = run.config.model_dump(mode="json")
        log.run_optional("report", lambda: write_page(run.config.out, settings=settings))
