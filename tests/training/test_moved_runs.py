"""Runs that are used from another folder, and after they were moved or copied."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopanimate_core.bundle import bundle_info
from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import RunConfig, stored_settings
from loopanimate_training.config.stored import path_settings
from loopanimate_training.loop import train
from loopanimate_training.model.export import export_bundle
from loopanimate_training.storage.checkpoint import load_latest, save_checkpoint
from loopanimate_training.testing import with_settings

Toy = Callable[..., RunConfig]


@pytest.fixture
def runs(
    toy: Toy, toy_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, RunConfig]:
    """A folder with two runs, the second from the first, and the second's settings: all paths relative to it."""
    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(toy_bundle_path, work / "start.safetensors")
    monkeypatch.chdir(work)
    settings: dict[str, Any] = {"steps": 1, "data.path": "frames", "data.cache": "cache"}
    one = toy(Path(), start="start.safetensors", **settings, out="runs/one")
    two = toy(Path(), start="runs/one", **settings, out="runs/two", title="two")
    train(one)
    train(two)
    return work, two


def exported(run: Path, folder: Path) -> str:
    export_bundle(run, folder / "out.safetensors")
    assert len(bundle_info(folder / "out.safetensors").provenance["training"]) == 2
    return str(load_latest(run).config["model"]["start"])  # type: ignore[union-attr]


def test_a_run_exports_from_anywhere(
    runs: tuple[Path, RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, _ = runs
    monkeypatch.chdir(tmp_path)
    assert exported(work / "runs/two", tmp_path) == str(work / "runs/one")
    alone = shutil.copytree(work / "runs/two", tmp_path / "backup/two")
    assert exported(alone, tmp_path) == str(work / "runs/one")
    copied = shutil.copytree(work, tmp_path / "copy")
    shutil.rmtree(work)
    assert exported(copied / "runs/two", tmp_path) == str(copied / "runs/one")
    with pytest.raises(LoopAnimateError, match="runs/one"):
        export_bundle(alone, tmp_path / "none.safetensors")


def test_a_moved_tree_resumes_however_its_paths_are_written(
    runs: tuple[Path, RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, two = runs
    moved = work.rename(tmp_path / "moved")
    monkeypatch.chdir(moved)
    assert train(with_settings(two, steps=2)).step == 2
    absolute = {"steps": 3, "out": str(moved / "runs/two")}
    absolute |= {
        "model": {"start": str(moved / "runs/one")},
        "data": {"path": str(moved / "frames")},
    }
    monkeypatch.chdir(tmp_path)
    assert train(with_settings(two, **absolute)).step == 3
    other = {**absolute, "model": {"start": str(moved / "start.safetensors")}}
    with pytest.raises(LoopAnimateError, match=r"model\.start = "):
        train(with_settings(two, **other))


def test_checkpoints_of_earlier_versions_hold_relative_paths(
    runs: tuple[Path, RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, two = runs
    saved = load_latest(work / "runs/two")
    assert saved is not None
    shutil.rmtree(work / "runs/two")
    as_before = dataclasses.replace(saved, config=two.model_dump(mode="json"))
    save_checkpoint(work / "runs/two", as_before, keep=1)
    assert train(with_settings(two, steps=2)).step == 2
    save_checkpoint(work / "runs/two", dataclasses.replace(as_before, step=3), keep=1)
    monkeypatch.chdir(tmp_path)
    assert exported(work / "runs/two", tmp_path) == str(work / "runs/one")


def test_provenance_has_no_folders_of_the_machine(
    runs: tuple[Path, RunConfig], tmp_path: Path
) -> None:
    work, _ = runs
    exported(work / "runs/two", tmp_path)
    assert str(tmp_path) not in str(bundle_info(tmp_path / "out.safetensors").provenance)


def test_all_paths_are_stored_absolute(toy: Toy) -> None:
    assert set(path_settings()) == {
        "out",
        "model.start",
        "distil.teacher",
        "validation.pictures",
        *(f"data.{name}" for name in ("path", "root", "masks", "saliency", "cache", "index")),
        *(f"data.mix.{name}" for name in ("path", "root", "masks")),
    }
    mixed = {"data.mix": "[{path: b, weight: 2}, {path: c, masks: d}]"}
    values = stored_settings(
        toy(stage=4, **{"distil.teacher": "a", "data.saliency": "grabcut"}, **mixed)
    )
    first, second = values["data"]["mix"]
    assert first["path"] == str(Path("b").absolute()) and first["masks"] is None
    assert second["masks"] == str(Path("d").absolute()) and second["weight"] == 1
    assert values["distil"]["teacher"] == str(Path("a").absolute())
    assert values["data"]["saliency"] == "grabcut" and values["data"]["root"] is None
