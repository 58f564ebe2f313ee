"""Runs the packaged recipes; demo.yaml is run by `test_demo.py`, those of ablations in `ablation/`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml

from loopanimate_core.bundle import mini_bundle_path
from loopanimate_training import demo
from loopanimate_training.config import flat_settings, resolve
from loopanimate_training.loop import train
from loopanimate_training.run.log import read_log
from loopanimate_training.storage.checkpoint import load_latest


def test_every_recipe_is_run() -> None:
    assert {path.stem for path in demo.RECIPES.glob("*.yaml")} == {
        "ablation_new",
        "ablation_stage3",
        "demo",
        "overfit",
        "paper",
    }


def test_the_papers_recipe_has_nothing_of_ours(
    tmp_path: Path, toy_bundle_path: Path, square_video: Callable[[Path, int], Path]
) -> None:
    """Two of its steps at toy size, for each stage; and the docs name every setting of it."""
    (tmp_path / "clips").mkdir()
    square_video(tmp_path / "clips" / "square.mp4", 110).with_suffix(".txt").write_text("a square")
    start, recipe = toy_bundle_path, demo.RECIPES / "paper.yaml"
    rows = {1: (15, 2e-4, 200_000), 2: (21, 6e-5, 100_000), 3: (35, 2e-5, 100_000)}
    for stage, row in rows.items():
        needed = {
            "out": tmp_path / str(stage),
            "model.start": start,
            "data.path": tmp_path / "clips",
        }
        config = resolve(stage, recipe, [f"{name}={value}" for name, value in needed.items()])
        assert (config.clip.frames, config.optimizer.lr, config.steps) == row
        assert config.batch.clips == 8 and config.optimizer.schedule == "constant"
        small = {"steps": 2, "device": "cpu", "batch.size": 2, "precision": "no", **needed}
        small |= {"clip.height_px": 32, "clip.width_px": 32, "log_every_steps": 1}
        toy = resolve(stage, recipe, [f"{name}={value}" for name, value in small.items()])
        assert train(toy).step == 2
        saved = load_latest(toy.out)
        assert saved is not None  # without an average, exports hold the weights themselves
        assert all(torch.equal(saved.weights[name], saved.average[name]) for name in saved.weights)
        start = toy.out


def test_the_table_of_departures_has_every_line_of_the_recipe() -> None:
    values = flat_settings(yaml.safe_load((demo.RECIPES / "paper.yaml").read_text()))
    table = (Path(__file__).parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
    plain = {"data.source", "data.threads", "batch.accumulate", "loss.drop_turn"}
    assert [name for name in values.keys() - plain if f"`{name}" not in table] == []


def test_overfit_memorises_a_clip(
    tmp_path: Path, square_video: Callable[[Path, int], Path]
) -> None:
    """The first 20 of its 150 steps at full size: the loss falls to about 0.35 of its start."""
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
