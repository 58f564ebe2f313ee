"""The training loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from loopanimate_core.bundle import Bundle
from loopanimate_core.errors import LoopAnimateError
from torch import Tensor, nn

from .checkpoint import Checkpoint, load_latest, save_checkpoint
from .clips import ClipEncoder, ClipStore
from .config import RunConfig
from .feed import Feed
from .losses import Batch, DiffusionLoss
from .optim import Ema, make_optimizer, set_learning_rate
from .runlog import RunLog
from .sheets import SheetMaker
from .sources import open_source, open_validation_source
from .start import load_weights, open_start, trained_parameters

BAD_STEPS_IN_A_ROW = 10
# Settings that a resumed run may have otherwise: they decide neither data nor gradients.
FREE_SETTINGS = (
    "steps", "save.", "sheets.", "log_every_steps", "out", "title", "license", "device", "data.threads",
    "data.prefetch", "data.cache", "data.max_bad_share",
)  # fmt: skip
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Outcome:
    """`signal_number` is set when a signal ended the run before its last step."""

    step: int
    signal_number: int | None = None


def train(config: RunConfig, *, allow_change: bool = False) -> Outcome:
    """Run, or go on with, the training that `config` describes, until its last step or a signal.

    Raises:
        LoopAnimateError: unusable data or start, a changed configuration, a loss that stays non-finite.
    """
    accelerator = Accelerator(mixed_precision=config.precision, cpu=config.device == "cpu")
    is_main = accelerator.is_main_process
    bundle = open_start(config.model, config.seed)
    parameters = trained_parameters(bundle, config.model)
    resumed = load_latest(config.out)
    if resumed is not None:
        if not allow_change:
            check_same_run(resumed.config, config)
        load_weights(bundle, resumed.weights)

    feed = make_feed(config, bundle, accelerator)
    model = prepare_model(config, bundle)
    optimizer = make_optimizer(parameters, config.optimizer)
    model, optimizer = accelerator.prepare(model.to(accelerator.device), optimizer)
    ema = Ema(parameters, config.optimizer.ema_decay)
    step, loss_on_bar = 0, None
    if resumed is not None:
        optimizer.load_state_dict(resumed.optimizer)
        ema.load(resumed.average)
        step, loss_on_bar = resumed.step, (resumed.log or {}).get("loss")
    accelerator.wait_for_everyone()
    config.out.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        if is_main:
            weights = {name: p.detach().cpu() for name, p in parameters.items()}
            average = {name: t.cpu() for name, t in ema.average.items()}
            state = Checkpoint(
                step, config.model_dump(mode="json"), weights, average, optimizer.state_dict(), {"loss": log.loss or 0.0}
            )
            save_checkpoint(config.out, state, config.save.keep)
        accelerator.wait_for_everyone()

    sheets = SheetMaker(config, bundle, open_validation_source(config.data, config.clip, feed.store.source))
    bad_steps = 0
    with (
        caught_signals() as caught,
        RunLog(config.out, config.steps, step, loss_on_bar, is_main) as log,
        feed.batches(step) as batches,
    ):
        while step < config.steps:
            began = time.perf_counter()
            lr = set_learning_rate(optimizer, config.optimizer, step, config.steps)
            loss, grad_norm = accumulate_gradients(accelerator, model, next(batches), parameters, config)
            if grad_norm.isfinite():
                optimizer.step()
                ema.update(step)
                bad_steps = 0
            else:
                bad_steps += 1
                log.say(f"step {step}: the gradient is not finite; the step is left out")
            optimizer.zero_grad(set_to_none=True)
            if bad_steps >= BAD_STEPS_IN_A_ROW:
                raise LoopAnimateError(f"the gradient was not finite for {bad_steps} steps in a row")
            step += 1

            clips_per_s = config.batch.clips / (time.perf_counter() - began)
            log.step(loss.item(), clips_per_s)
            if step % config.log_every_steps == 0 or step == config.steps:
                log.write(
                    {"step": step, "loss": loss.item(), "loss_mean": log.loss, "grad_norm": grad_norm.item(),
                     "lr": lr, "clips_per_s": round(clips_per_s, 3), "time": round(time.time(), 1)}
                )  # fmt: skip
            number = agree_on_signal(accelerator, caught)
            if step % config.save.every_steps == 0 or step == config.steps or number:
                save()
            if number:
                return Outcome(step, number)
            if is_main and config.sheets.every_steps and step % config.sheets.every_steps == 0:
                sheets.draw(ema, step)
    return Outcome(step)


def make_feed(config: RunConfig, bundle: Bundle, accelerator: Accelerator) -> Feed:
    """Source, encoders and cache of a run, sharded over the processes."""
    device = accelerator.device
    vae, image_encoder = bundle.vae.to(device), bundle.image_encoder.to(device)
    encoder = ClipEncoder(vae, image_encoder, config.clip, device)
    store = ClipStore(open_source(config.data, config.clip), encoder, config.data.cache)
    length = bundle.text_encoder.config.max_position_embeddings

    def tokenize(prompts: list[str]) -> Tensor:
        options = {"padding": "max_length", "truncation": True, "max_length": length}
        return bundle.tokenizer(prompts, return_tensors="pt", **options).input_ids

    return Feed(
        config, store, tokenize, bundle.config.schedule.num_train_timesteps,
        rank=accelerator.process_index, world=accelerator.num_processes,
        quarantine=config.out / "quarantine.jsonl",
    )  # fmt: skip


def prepare_model(config: RunConfig, bundle: Bundle) -> DiffusionLoss:
    bundle.unet.gradient_checkpointing = config.model.gradient_checkpointing
    if config.model.channels_last:
        bundle.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DiffusionLoss(bundle.unet, bundle.text_encoder, bundle.config.schedule, config.loss.min_snr)


def accumulate_gradients(
    accelerator: Accelerator, model: Any, batches: list[Batch], parameters: dict[str, nn.Parameter], config: RunConfig
) -> tuple[Tensor, Tensor]:
    """Gradients of the mean loss over all micro-batches and processes; returns it and the gradient norm."""
    total = torch.zeros((), device=accelerator.device)
    for i, batch in enumerate(batches):
        last = i == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            loss = model(batch.to(accelerator.device)) / len(batches)
            accelerator.backward(loss)
        total += loss.detach()
    norm = accelerator.clip_grad_norm_(list(parameters.values()), config.optimizer.clip_norm)
    assert isinstance(norm, Tensor)
    return accelerator.reduce(total, "mean"), norm  # type: ignore[return-value]


def check_same_run(old: dict[str, Any], config: RunConfig) -> None:
    """Refuse to go on with a run under settings that would make it another one."""
    before, now = flat_settings(old), flat_settings(config.model_dump(mode="json"))
    for name in sorted(set(before) | set(now)):
        if before.get(name) != now.get(name) and not name.startswith(FREE_SETTINGS):
            raise LoopAnimateError(
                f"{config.out} holds a run with {name} = {before.get(name)}, not {now.get(name)}; restore it, "
                "choose another `out`, or say --allow-change"
            )


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        flat.update(flat_settings(value, f"{prefix}{name}.") if nested else {prefix + name: value})
    return flat


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying; a second one of either acts as usual."""
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def remember(number: int, _: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    for number in SIGNALS:
        signal.signal(number, remember)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def agree_on_signal(accelerator: Accelerator, caught: list[int]) -> int | None:
    """The signal that any process has caught: all must stop at the same step."""
    number = caught[0] if caught else 0
    if accelerator.num_processes > 1:
        flag = torch.tensor([number], device=accelerator.device)
        number = int(accelerator.gather(flag).max())  # type: ignore[union-attr]
    return number or None
