"""Checkpoints are written while training goes on, and are the same as those that it waits for."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from waiting import wait_until

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import RunConfig, SaveConfig
from loopanimate_training.loop import train
from loopanimate_training.run import saver as module
from loopanimate_training.run.heartbeat import Heartbeat, read_heartbeat
from loopanimate_training.run.log import RunLog
from loopanimate_training.run.requests import Requests
from loopanimate_training.run.saver import Saver
from loopanimate_training.storage.checkpoint import (
    Checkpoint,
    checkpoints,
    load_checkpoint,
    load_latest,
)

Toy = Callable[..., RunConfig]


def filled(step: int, value: float | None = None) -> Checkpoint:
    tensor = {"unet.a": torch.full((50,), float(step if value is None else value))}
    return Checkpoint(step, {}, tensor, tensor, {"state": {}})


@contextmanager
def saver_in(run: Path) -> Iterator[Saver]:
    """A saver as a run has it."""
    config = RunConfig.model_construct(out=run, save=SaveConfig(keep=9, retry_s=0.01))
    requests = Requests(Accelerator(cpu=True), run, [])
    with (
        Heartbeat(run, 10, True) as heartbeat,
        RunLog(run, 10, 0, None, True) as log,
        Saver(config, requests, heartbeat, log) as saver,
    ):
        yield saver


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Checkpoints are written once this event is set, as on a slow disk."""
    write, released = module.save_checkpoint, threading.Event()

    def write_later(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
        assert released.wait(60)
        return write(run, checkpoint, keep)

    monkeypatch.setattr(module, "save_checkpoint", write_later)
    return released


def test_training_goes_on_while_the_disk_is_slow(tmp_path: Path, disk: threading.Event) -> None:
    with saver_in(tmp_path) as saver:
        saver.start(filled(1))  # returns
        assert checkpoints(tmp_path) == [] and not saver.failed
        disk.set()
        saver.start(filled(2))  # waits for the first
        assert load_checkpoint(tmp_path / "step-00000001").step == 1
    latest = load_latest(tmp_path)  # leaving the context waits for the second
    assert latest is not None and latest.step == 2 and latest.weights["unet.a"][0] == 2


def test_a_wait_for_the_disk_is_in_the_heartbeat(tmp_path: Path, disk: threading.Event) -> None:
    def state() -> str:
        return (read_heartbeat(tmp_path) or {})["state"]

    with saver_in(tmp_path) as saver:
        saver.start(filled(1))
        waiting = threading.Thread(target=saver.save, args=(2, filled(2)))
        waiting.start()
        wait_until("saving", lambda: state() == "saving")
        disk.set()
        waiting.join()
        assert [path.name[-1] for path in checkpoints(tmp_path)] == ["1", "2"]


def test_a_failed_run_keeps_the_checkpoint_that_was_being_written(
    tmp_path: Path, disk: threading.Event
) -> None:
    threading.Timer(0.2, disk.set).start()
    with pytest.raises(ZeroDivisionError), saver_in(tmp_path) as saver:
        saver.start(filled(1))
        raise ZeroDivisionError
    assert load_checkpoint(tmp_path / "step-00000001").step == 1


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, disk: threading.Event) -> None:
    with pytest.raises(KeyboardInterrupt), saver_in(tmp_path) as saver:
        saver.start(filled(1))
        raise KeyboardInterrupt
    assert checkpoints(tmp_path) == []
    disk.set()


def test_what_fails_in_the_background_is_made_up_for_in_the_foreground(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    with saver_in(run) as saver:
        saver.start(filled(1, value=float("nan")))
        saver.wait()
        assert saver.failed and "step 1 is not saved yet" in caplog.text
        with pytest.raises(LoopAnimateError, match="not finite after step 2"):
            saver.save(2, filled(2, value=float("nan")))
        assert saver.save(3, filled(3)) and not saver.failed
        assert [path.name[-1] for path in checkpoints(run)] == ["3"]


@pytest.mark.numeric
def test_training_does_not_change_what_is_being_written(toy: Toy, disk: threading.Event) -> None:
    """The first checkpoint is written after more steps were taken, and is that of a run which waited for it."""
    behind, before = (
        toy(steps=4, **{"save.every_steps": 2, "save.keep": 9, "save.background": on})
        for on in (True, False)
    )
    disk.set()
    train(before)
    shutil.move(before.out, before.out.with_name("before"))
    disk.clear()
    threading.Timer(3.0, disk.set).start()
    train(behind)
    a, b = (
        load_checkpoint(run / "step-00000002")
        for run in (behind.out, before.out.with_name("before"))
    )
    assert a.step == b.step == 2
    for mine, other in ((a.weights, b.weights), (a.average, b.average)):
        assert all(torch.equal(mine[name], other[name]) for name in other)
    states = [one.optimizer["state"] for one in (a, b)]
    assert states[0].keys() == states[1].keys()
    for key, values in states[1].items():
        assert all(torch.equal(states[0][key][name], values[name]) for name in values)
