"""The progress bar, read as people read it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from waiting import clock_of_bars

from loopanimate_training import progress
from loopanimate_training.loop import train
from loopanimate_training.run import log as runlog
from loopanimate_training.run.log import RunLog, read_log
from loopanimate_training.testing import toy_run, with_settings

STATE = re.compile(
    r"(?P<step>\d+)/(?P<steps>\d+) \[[\d:]+<(?P<left>[\d:]+|\?), +[\d.?]+(step/s|s/step)"
    r"(, loss (?P<loss>\d+\.\d{4}), (?P<speed>[\d.]+) clips/s, (?P<memory>[\d.]+) GB)?\]"
)


class Bar(NamedTuple):
    step: int
    steps: int
    left_s: int | None
    loss: str | None
    speed: str | None
    memory: str | None


def read_bar(text: str) -> list[Bar]:
    """The states that a bar has gone through."""
    bars = []
    for found in STATE.finditer(text):
        left_s = None
        if found["left"] != "?":
            left_s = 0
            for part in found["left"].split(":"):
                left_s = 60 * left_s + int(part)
        step, steps = int(found["step"]), int(found["steps"])
        bars.append(Bar(step, steps, left_s, *found.group("loss", "speed", "memory")))
    return bars


def test_it_shows_what_the_log_has(
    tmp_path: Path,
    toy_bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "FILE_S", 0.0)  # every step
    monkeypatch.setattr(runlog, "memory_gb", lambda: 1.26)  # the real one grows at any moment
    config = toy_run(tmp_path, toy_bundle_path, steps=6)
    train(with_settings(config, steps=4))
    assert {bar.steps for bar in read_bar(capsys.readouterr().err)} == {4}
    train(config)
    bars = read_bar(capsys.readouterr().err)
    assert [bar.step for bar in bars if bar.loss is None] == [4]  # a resumed run starts there
    rows = {row["step"]: row for row in read_log(config.out / "log.jsonl")}
    shown = {bar.step: bar for bar in bars if bar.loss is not None}
    assert list(shown) == [5, 6]
    for step, bar in shown.items():
        row = rows[step]
        assert bar.loss == f"{row['mean_loss']:.4f}" and bar.left_s is not None
        assert float(bar.speed or 0) == pytest.approx(row["clips_per_s"], abs=0.051)
        assert (bar.memory, row["memory_gb"]) == ("1.3", 1.26)


def test_the_time_left_is_that_of_the_steps_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FILE_S", 0.0)
    clock = clock_of_bars(monkeypatch)
    with RunLog(tmp_path, 5000, 4000, None, active=True) as log:
        for _ in range(6):
            clock.advance(0.05)
            log.advance(1.0, 2.0)
    last = read_bar(capsys.readouterr().err)[-1]
    assert (last.step, last.left_s) == (4006, 49)  # 994 steps of 0.05 s
    assert (last.speed, last.loss) == ("2.0", "1.0000")
