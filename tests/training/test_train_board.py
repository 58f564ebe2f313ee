"""The log for TensorBoard, read back as TensorBoard reads it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loopanimate_training.config import RunConfig
from loopanimate_training.loop import train
from loopanimate_training.runlog import read_log

MakeRun = Callable[..., RunConfig]


def test_tensorboard_shows_the_rows_of_the_log_also_after_a_resume(make_run: MakeRun) -> None:
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard is not installed",
    )
    settings = {"tensorboard": True, "save.every_steps": 2, "log_every_steps": 1}
    first = make_run(steps=3, **settings)
    train(first)
    for lost in first.out.glob("step-00000003"):  # as if killed after step 3: it is taken again
        lost.rename(first.out / "lost")
    train(make_run(steps=5, **settings))
    board = events.EventAccumulator(str(first.out / "tensorboard"))
    board.Reload()
    rows = read_log(first.out / "log.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    for name in ("loss", "mean_loss", "lr", "grad_norm", "clips_per_s"):
        shown = [(event.step, event.value) for event in board.Scalars(name)]
        assert [step for step, _ in shown] == [1, 2, 3, 4, 5]
        assert [value for _, value in shown] == pytest.approx([row[name] for row in rows], rel=1e-6)
