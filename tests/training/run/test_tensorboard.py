"""The log for TensorBoard, read back as TensorBoard reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from loopanimate_training.config import RunConfig
from loopanimate_training.loop import train
from loopanimate_training.run import tensorboard
from loopanimate_training.run.log import RunLog, read_log
from loopanimate_training.run.tensorboard import TensorBoardLog

MakeRun = Callable[..., RunConfig]


def test_tensorboard_shows_the_rows_of_the_log_even_after_a_resume(make_run: MakeRun) -> None:
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard is not installed",
    )
    settings = {"tensorboard": True, "save.every_steps": 2, "log_every_steps": 1}
    first = make_run(steps=3, **settings)
    train(first)
    for lost in first.out.glob("step-00000003"):  # as if it was never saved: step 3 is repeated
        lost.rename(first.out / "lost")
    train(make_run(steps=5, **settings))
    board = events.EventAccumulator(str(first.out / "tensorboard"))
    board.Reload()
    rows = read_log(first.out / "log.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    for name in ("loss", "mean_loss", "lr", "grad_norm", "clips_per_s", "data_wait_s"):
        shown = [(event.step, event.value) for event in board.Scalars(name)]
        assert [step for step, _ in shown] == [1, 2, 3, 4, 5]
        assert [value for _, value in shown] == pytest.approx([row[name] for row in rows], rel=1e-6)


def test_a_full_disk_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit on file size, like a quota, which ends the writer thread of TensorBoard."""
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    resource = pytest.importorskip("resource", reason="only POSIX systems have limits")
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(tensorboard, "RETRY_S", 0.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    board = TensorBoardLog(tmp_path, 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        for step in range(1, 1001):
            board.write({"step": step, "loss": 0.5})
            if caplog.records:
                break
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "TensorBoard misses rows from here on" in caplog.text
    monkeypatch.undo()
    board.write({"step": 2000, "loss": 0.25})
    board.close()
    files = sorted((tmp_path / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert len(files) >= 2 and b"loss" in files[-1].read_bytes()


def test_a_folder_that_cannot_be_created_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    (tmp_path / "tensorboard").write_text("a file")
    with RunLog(tmp_path, 3, 0, None, active=True, tensorboard=True) as log:
        for step in range(1, 4):
            log.write({"step": step, "loss": 0.5})
    assert len(read_log(tmp_path / "log.jsonl")) == 3
    assert caplog.text.count("TensorBoard misses rows") == 1  # the next try is a minute later
