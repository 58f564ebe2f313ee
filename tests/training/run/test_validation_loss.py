"""The loss on validation clips depends on nothing but the averaged weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from accelerate import Accelerator

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import RunConfig
from loopanimate_training.data.source import FileSource
from loopanimate_training.data.video.bad_clip import BadClip
from loopanimate_training.loop import train
from loopanimate_training.run.log import read_log
from loopanimate_training.run.validation_loss import TIMESTEPS_PER_CLIP
from loopanimate_training.setup import Run, open_run

Toy = Callable[..., RunConfig]


def opened(config: RunConfig) -> Run:
    return open_run(config, Accelerator(cpu=True), allow_change=False)


def measure(run: Run) -> float:
    assert run.validation_loss is not None
    return run.validation_loss.measure(run.model, run.state.ema, run.accelerator)


def test_only_the_average_decides(toy: Toy) -> None:
    run = opened(toy(**{"validation.loss_clips": 2}))
    other = opened(toy(seed=5, **{"validation.loss_clips": 2, "data.cache": "null"}))
    first = measure(run)
    assert first > 0 and measure(run) == first == pytest.approx(measure(other), rel=1e-5)
    before = {name: p.detach().clone() for name, p in run.state.parameters.items()}
    with torch.no_grad():
        for parameter in run.state.parameters.values():
            parameter.add_(1.0)
    assert measure(run) == first
    assert all(torch.equal(p, before[name] + 1.0) for name, p in run.state.parameters.items())
    for average in run.state.ema.average.values():
        average.add_(0.5)
    assert measure(run) != first


def test_timesteps_are_spread_and_noise_differs(toy: Toy) -> None:
    measured = opened(toy(**{"validation.loss_clips": 3})).validation_loss
    assert measured is not None
    batches = [measured.batch(clip, part) for clip in (0, 1) for part in range(TIMESTEPS_PER_CLIP)]
    assert [int(batch.timesteps) for batch in batches] == [125, 375, 625, 875] * 2
    assert len({float(batch.noise.sum()) for batch in batches}) == len(batches)
    assert not any(bool(batch.keep_turn) for batch in batches)


def test_the_log_and_the_report_have_it(toy: Toy) -> None:
    settings = {"validation.loss_clips": 2, "validation.every_steps": 1, "validation.clips": 1}
    config = toy(steps=2, **settings, **{"validation.steps": 1})
    train(config)
    rows = [row for row in read_log(config.out / "log.jsonl") if "validation_loss" in row]
    assert [row["step"] for row in rows] == [1, 2] and all(
        row["validation_loss"] > 0 for row in rows
    )
    assert "Loss of the average on validation clips" in (config.out / "report.html").read_text()


def test_a_clip_that_cannot_be_read_is_an_error(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(toy(**{"validation.loss_clips": 2}))

    def fail(*_: object) -> None:
        raise BadClip("the disk does not answer")

    monkeypatch.setattr(FileSource, "read", fail)
    with pytest.raises(LoopAnimateError, match="the disk does not answer"):
        measure(run)


def test_it_is_refused_for_distillation(toy: Toy) -> None:
    with pytest.raises(LoopAnimateError, match=r"validation\.loss_clips must be 0"):
        toy(stage=4, **{"validation.loss_clips": 2})
