"""The training loop."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from loopanimate_core.bundle import Bundle
from loopanimate_core.errors import LoopAnimateError

from .checkpoint import Checkpoint, load_latest, save_checkpoint
from .clips import ClipEncoder, ClipStore
from .config import RunConfig, require_same_run
from .feed import Feed
from .losses import Batch, DiffusionLoss
from .optim import Ema, make_optimizer, set_learning_rate
from .runlog import RunLog
from .sheets import SheetMaker
from .signals import agreed_signal, caught_signals
from .sources import open_source, open_validation_source
from .start import load_weights, open_start, trained_parameters

BAD_STEPS_IN_A_ROW = 10


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `signal_number` is None when it took its last step."""

    step: int
    signal_number: int | None = None


def train(config: RunConfig, *, allow_change: bool = False) -> Outcome:
    """Run, or go on with, the training that `config` describes, until its last step or a signal.

    Raises:
        LoopAnimateError: unusable data or start, a folder that holds another run (unless `allow_change`),
            gradients that stay non-finite.
    """
    accelerator = Accelerator(mixed_precision=config.precision, cpu=config.device == "cpu")
    is_main = accelerator.is_main_process
    earlier = load_latest(config.out)
    if earlier is not None and not allow_change:
        require_same_run(earlier.config, config)

    # 1. The networks, the data, the optimiser
    bundle = open_start(config.model, config.seed)
    parameters = trained_parameters(bundle, config.model)
    if earlier is not None:
        load_weights(bundle, earlier.weights)
    feed = make_feed(config, bundle, accelerator)
    model = make_loss(config, bundle).to(accelerator.device)
    model, optimizer = accelerator.prepare(model, make_optimizer(parameters, config.optimizer))
    state = State(config, parameters, optimizer, Ema(parameters, config.optimizer.ema_decay))
    if earlier is not None:
        state.restore(earlier)
    validation = open_validation_source(config.data, config.clip, feed.store.source)
    sheets = SheetMaker(config, bundle, validation)
    config.out.mkdir(parents=True, exist_ok=True)

    # 2. Step by step
    with (
        caught_signals() as caught,
        RunLog(config.out, config.steps, state.step, state.mean_loss, is_main) as log,
        feed.batches(state.step) as batches,
    ):
        bad_steps = 0
        while state.step < config.steps:
            began = time.perf_counter()
            lr = set_learning_rate(optimizer, config.optimizer, state.step, config.steps)
            loss, grad_norm = accumulate_gradients(
                accelerator, model, next(batches), parameters, config
            )
            if grad_norm.isfinite():
                optimizer.step()
                state.ema.update(state.step)
                bad_steps = 0
            else:
                bad_steps += 1
                log.say(f"step {state.step}: the gradient is not finite; the step is left out")
                if bad_steps == BAD_STEPS_IN_A_ROW:
                    raise LoopAnimateError(
                        f"the gradient was not finite in {bad_steps} steps in a row"
                    )
            optimizer.zero_grad(set_to_none=True)
            state.step += 1

            # 3. Log, save, show
            clips_per_s = config.batch.clips / (time.perf_counter() - began)
            state.mean_loss = log.step(loss.item(), clips_per_s)
            at_end = state.step == config.steps
            if state.step % config.log_every_steps == 0 or at_end:
                log.write(
                    {"step": state.step, "loss": loss.item(), "mean_loss": state.mean_loss, "lr": lr,
                     "grad_norm": grad_norm.item(), "clips_per_s": round(clips_per_s, 3), "time": round(time.time(), 1)}
                )  # fmt: skip
            number = agreed_signal(accelerator, caught)
            if is_main and (state.step % config.save.every_steps == 0 or at_end or number):
                save_checkpoint(config.out, state.checkpoint(), config.save.keep)
            if number:
                accelerator.wait_for_everyone()  # a launcher ends all once one has ended
                return Outcome(state.step, number)
            if (
                is_main
                and config.sheets.every_steps
                and state.step % config.sheets.every_steps == 0
            ):
                sheets.draw(state.ema, state.step)
    accelerator.wait_for_everyone()
    return Outcome(state.step)


@dataclass
class State:
    """What changes in a run; randomness does not, it is a function of the step."""

    config: RunConfig
    parameters: dict[str, nn.Parameter]
    optimizer: Any
    ema: Ema
    step: int = 0
    mean_loss: float | None = None

    def checkpoint(self) -> Checkpoint:
        """A copy on the CPU."""
        return Checkpoint(
            step=self.step,
            config=self.config.model_dump(mode="json"),
            weights={name: p.detach().cpu() for name, p in self.parameters.items()},
            average={name: tensor.cpu() for name, tensor in self.ema.average.items()},
            optimizer=self.optimizer.state_dict(),
            mean_loss=self.mean_loss,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over all but the weights, which were in place before the optimiser was made."""
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.ema.load(checkpoint.average)
        self.step, self.mean_loss = checkpoint.step, checkpoint.mean_loss


def make_feed(config: RunConfig, bundle: Bundle, accelerator: Accelerator) -> Feed:
    """Source, encoders and cache of a run, and this process's share of it."""
    device = accelerator.device
    encoder = ClipEncoder(
        bundle.vae.to(device), bundle.image_encoder.to(device), config.clip, device
    )
    store = ClipStore(open_source(config.data, config.clip), encoder, config.data.cache)
    length = bundle.text_encoder.config.max_position_embeddings

    def tokenize(prompts: list[str]) -> Tensor:
        tokens = bundle.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return tokens.input_ids

    return Feed(
        config, store, tokenize, bundle.config.schedule.num_train_timesteps,
        rank=accelerator.process_index, world=accelerator.num_processes,
        quarantine=config.out / "quarantine.jsonl",
    )  # fmt: skip


def make_loss(config: RunConfig, bundle: Bundle) -> DiffusionLoss:
    """The networks with the objective around them."""
    bundle.unet.gradient_checkpointing = config.model.gradient_checkpointing
    if config.model.channels_last:
        bundle.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return DiffusionLoss(bundle.unet, bundle.text_encoder, bundle.config.schedule, config.loss)


def accumulate_gradients(
    accelerator: Accelerator, model: Any, batches: list[Batch], parameters: dict[str, nn.Parameter],
    config: RunConfig,
) -> tuple[Tensor, Tensor]:  # fmt: skip
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
