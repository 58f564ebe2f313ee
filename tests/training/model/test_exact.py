"""Exactness: a run that was stopped anywhere equals one that was not, and every draw has its own key."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from loopanimate_core.bundle import read_bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import RunConfig
from loopanimate_training.loop import train
from loopanimate_training.model import precision as precision_module
from loopanimate_training.model.losses import DiffusionLoss
from loopanimate_training.model.precision import BAD_STEPS_IN_A_ROW, StepGuard
from loopanimate_training.run.log import read_log
from loopanimate_training.setup import make_loader
from loopanimate_training.storage.checkpoint import load_latest
from loopanimate_training.testing import difference, log_difference, toy_run, with_settings

pytestmark = pytest.mark.numeric

Toy = Callable[..., RunConfig]
STEPS = 6


@pytest.fixture
def toy(tmp_path: Path, toy_bundle_path: Path) -> Toy:
    """`toy("name", **settings)`: a run of tiny steps, two micro-batches each, in a folder of its own."""

    def make(name: str = "run", **settings: Any) -> RunConfig:
        more = {"steps": STEPS, "batch.accumulate": 2, **settings}
        return toy_run(tmp_path, toy_bundle_path, out=tmp_path / name, **more)

    return make


def assert_same_run(a: RunConfig, b: RunConfig) -> None:
    ours, theirs = load_latest(a.out), load_latest(b.out)
    assert ours is not None and theirs is not None and ours.step == STEPS
    assert difference(ours, theirs) is None
    assert log_difference(a.out, b.out) is None


@pytest.mark.parametrize("precision", ["no", "fp16"])
def test_resumed_run_is_bit_equal(toy: Toy, precision: str) -> None:
    """Three clips and four a step: every stop lies inside an epoch, and every stretch crosses one."""
    settings, stops = {"precision": precision, "save.every_steps": 100}, (3, STEPS)
    if precision == "no":
        settings.update({"model.train": "[all]", "model.train_text_encoder": True})
        stops = (1, 3, 4, STEPS)
    whole, parts = toy("whole", **settings), toy("parts", **settings)
    train(whole)
    for steps in stops:
        assert train(with_settings(parts, steps=steps)).step == steps
    assert_same_run(whole, parts)


class Interrupted(BaseException):
    """A death that nothing catches."""


def at_call(number: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something in the given forward pass of the process, counted from one."""
    calls, forward = [], DiffusionLoss.forward

    def counting(self: DiffusionLoss, *args: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) == number:
            action()
        return forward(self, *args)

    monkeypatch.setattr(DiffusionLoss, "forward", counting)


@pytest.mark.parametrize("forward", [5, 6])
def test_a_death_between_micro_batches_repeats_the_whole_step(
    toy: Toy, forward: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise Interrupted

    whole, broken = toy("whole"), toy("broken")
    train(whole)
    with monkeypatch.context() as patch:
        at_call(forward, die, patch)
        with pytest.raises(Interrupted):
            train(broken)
    assert (found := load_latest(broken.out)) is not None and found.step == 2
    train(broken)
    assert_same_run(whole, broken)


def test_a_signal_between_micro_batches_finishes_the_step(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = toy("whole"), toy("stopped", **{"save.every_steps": 100})
    train(whole)
    with monkeypatch.context() as patch:
        at_call(6, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        outcome = train(stopped)
    assert (outcome.step, outcome.exit_code) == (3, 128 + signal.SIGTERM)
    train(stopped)
    assert_same_run(whole, stopped)


def test_a_row_is_a_function_of_seed_and_number(toy: Toy) -> None:
    """Step, micro-batch and rank only choose numbers; order, threads and earlier rows do not matter."""
    bundle = read_bundle(toy().model.start)

    def rows(config: RunConfig, numbers: list[int], threads: int) -> dict[int, list[torch.Tensor]]:
        loader = make_loader(config, bundle, Accelerator(cpu=True))
        with ThreadPoolExecutor(threads) as pool:
            return dict(
                zip(numbers, pool.map(lambda n: list(loader.sample(n)), numbers), strict=True)
            )

    numbers = list(range(12))
    forwards = rows(toy(), numbers, 1)
    backwards = rows(toy(), numbers[::-1], 4)
    other = rows(toy(seed=1), numbers, 1)
    for number in numbers:
        assert all(map(torch.equal, forwards[number], backwards[number]))
        assert not torch.equal(forwards[number][1], other[number][1])
    noises = [forwards[number][1] for number in numbers]
    assert not any(torch.equal(a, b) for i, a in enumerate(noises) for b in noises[:i])


@pytest.mark.parametrize(("size", "accumulate", "world"), [(4, 1, 1), (4, 2, 2), (8, 3, 4)])
def test_steps_share_out_the_numbers(toy: Toy, size: int, accumulate: int, world: int) -> None:
    config = toy(**{"batch.size": size, "batch.accumulate": accumulate})
    loader = make_loader(config, read_bundle(config.model.start), Accelerator(cpu=True))
    loader.world = world
    numbers = []
    for step in range(3):
        for micro in range(accumulate):
            for loader.rank in range(world):
                numbers += loader.numbers(step, micro)
    assert numbers == list(range(3 * size * accumulate))


# ------------------------------------------------------------------------------------- loss scale
def test_the_scale_halves_on_overflow_and_doubles_after_calm() -> None:
    guard, bad, good = StepGuard("fp16"), torch.tensor(float("inf")), torch.tensor(1.0)
    assert guard.scale == 2.0**16
    assert not guard.accepts(bad) and guard.scale == 2.0**15
    for _ in range(1999):
        assert guard.accepts(good)
    saved = guard.state()
    assert guard.accepts(good) and guard.scale == 2.0**16
    again = StepGuard("fp16")
    again.restore(saved)
    assert again.accepts(good) and again.scale == 2.0**16


@pytest.mark.parametrize(("precision", "halvings"), [("no", 0), ("bf16", 0), ("fp16", 16)])
def test_gradients_that_stay_bad_stop_the_run(precision: str, halvings: int) -> None:
    guard, bad = StepGuard(precision), torch.tensor(float("nan"))
    for _ in range(halvings + BAD_STEPS_IN_A_ROW - 1):
        assert not guard.accepts(bad)
    with pytest.raises(LoopAnimateError, match="not finite in 10 steps in a row"):
        guard.accepts(bad)


def test_an_overflow_leaves_the_step_out_and_the_scale_is_remembered(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_module, "FIRST_SCALE", 2.0**28)
    config = toy("run", precision="fp16", **{"save.every_steps": 100})
    train(with_settings(config, steps=8))
    rows = read_log(config.out / "log.jsonl")
    left_out = [row["loss_scale"] for row in rows if "event" in row]
    assert left_out and left_out == [2.0 ** (27 - i) for i in range(len(left_out))]
    found = load_latest(config.out)
    assert found is not None and found.loss_scale == (left_out[-1], 8 - len(left_out))
