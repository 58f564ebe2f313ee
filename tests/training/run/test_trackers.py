"""The log for TensorBoard, read back as TensorBoard reads it, and for packages with the functions of wandb."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import RunConfig
from loopanimate_training.loop import train
from loopanimate_training.run import trackers
from loopanimate_training.run.log import RunLog, read_log
from loopanimate_training.run.trackers import TensorBoardLog, open_trackers

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
    monkeypatch.setattr(trackers, "RETRY_S", 0.0)
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
    boards = open_trackers(tmp_path, 0, True, None, {})
    with RunLog(tmp_path, 3, 0, None, active=True, trackers=boards) as log:
        for step in range(1, 4):
            log.write({"step": step, "loss": 0.5})
    assert len(read_log(tmp_path / "log.jsonl")) == 3
    assert caplog.text.count("TensorBoard misses rows") == 1  # the next try is a minute later


def test_trackio_has_the_rows_of_the_log_even_after_a_resume(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its database: the functions of trackio that read it need more packages."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed (no extra includes it)")
    settings = {"tracker": "trackio", "save.every_steps": 2, "log_every_steps": 1}
    for steps in (2, 4):
        train(make_run(steps=steps, **settings))
    (file,) = (tmp_path / "trackio").glob("loopanimate*.db")
    with sqlite3.connect(file) as database:
        found = database.execute("SELECT run_name, step FROM metrics ORDER BY step").fetchall()
    assert [step for _, step in found] == [1, 2, 3, 4] and {name for name, _ in found} == {"run"}


def test_a_tracker_that_is_missing_is_one_sentence(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(LoopAnimateError, match="tracker is wandb, which is not installed"):
        train(make_run(steps=1, tracker="wandb"))


def test_a_tracker_that_fails_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A package of our own with wandb's functions, whose server is not there at first."""
    (tmp_path / "wandb.py").write_text(
        "rows, fails = [], [True]\n"
        "def init(**options):\n"
        "    if fails.pop() if fails else False: raise ConnectionError('no server')\n"
        "def log(numbers, step): rows.append((step, numbers))\n"
        "def finish(): rows.append('end')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(trackers, "RETRY_S", 0.0)
    boards = open_trackers(tmp_path, 0, False, "wandb", {})
    with RunLog(tmp_path, 3, 0, None, active=True, trackers=boards) as log:
        for step in range(1, 4):
            log.write({"step": step, "loss": 0.5, "time": 1.0})
    rows = sys.modules.pop("wandb").rows
    assert [row if row == "end" else row[0] for row in rows] == [2, 3, "end"]
    assert rows[0][1]["loss"] == 0.5 and "time" not in rows[0][1]
    assert "wandb misses rows from here on" in caplog.text
