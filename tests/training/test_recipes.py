"""The recipes beside the code, run: demo.yaml by `test_train_demo.py`, the others here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from loopanimate_core.bundle import mini_bundle_path
from loopanimate_training import demo
from loopanimate_training.config import resolve
from loopanimate_training.loop import train
from loopanimate_training.run.log import read_log


def test_every_recipe_is_run() -> None:
    assert {path.stem for path in demo.RECIPES.glob("*.yaml")} == {"demo", "overfit"}


def test_overfit_learns_a_clip_by_heart(
    tmp_path: Path, square_video: Callable[[Path, int], Path]
) -> None:
    """Its first 20 of 150 steps, at its own sizes: the loss falls to about 0.35 of what it was."""
    clips = tmp_path / "clips"
    clips.mkdir()
    square_video(clips / "square.mp4", 24).with_suffix(".txt").write_text("a square swinging")
    settings = {
        "out": tmp_path / "run",
        "steps": 20,
        "model.start": mini_bundle_path(),
        "data.path": clips,
        "data.index": tmp_path / "index",
    }
    overrides = [f"{name}={value}" for name, value in settings.items()]
    config = resolve(1, demo.RECIPES / "overfit.yaml", overrides)
    assert train(config).exit_code == 0
    losses = [row["loss"] for row in read_log(config.out / "log.jsonl")]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5]), losses
