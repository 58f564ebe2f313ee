"""Sheets: each process draws its share of the loops, and the first one puts them together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from runs import SMOOTH, train_in_a_child

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_training.config import RunConfig
from loopanimate_training.run.validation import in_order
from loopanimate_training.setup import Run, open_run
from loopanimate_training.testing import toy_run, two_processes

pytestmark = pytest.mark.numeric

Toy = Callable[..., RunConfig]
SHEET = "sheet-00000001.png"


@pytest.fixture
def toy(tmp_path: Path, toy_bundle_path: Path) -> Toy:
    def make(name: str = "run", **settings: Any) -> RunConfig:
        more = {
            "steps": 1,
            "validation.every_steps": 1,
            "validation.steps": 2,
            "validation.clips": 3,
            **settings,
        }
        return toy_run(tmp_path, toy_bundle_path, out=tmp_path / name, **more)

    return make


def opened(config: RunConfig) -> Run:
    return open_run(config, Accelerator(cpu=True), allow_change=False)


def test_shares_are_disjoint_and_make_the_whole(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    call = LoopAnimatePipeline.__call__

    def counted(self: LoopAnimatePipeline, *args: Any, **settings: Any) -> Any:
        seeds.append(settings["seed"])
        return call(self, *args, **settings)

    monkeypatch.setattr(LoopAnimatePipeline, "__call__", counted)
    validator = opened(toy()).validator
    whole = validator.generate_share(0, 1)
    assert seeds == [0, 1, 2]
    seeds.clear()
    shares = [validator.generate_share(rank, 4) for rank in range(4)]
    assert seeds == [0, 1, 2] and shares[3] == []
    together = in_order([validator.generate_share(1, 2), validator.generate_share(0, 2)])
    for one, other in zip(whole, together, strict=True):
        assert one.row == other.row and torch.equal(one.frames, other.frames)


def test_two_processes_draw_the_sheet_of_one(toy: Toy, free_port: int) -> None:
    alone, shared = toy("alone", **SMOOTH), toy("shared", **SMOOTH)
    train_in_a_child(alone)
    assert [life.end() for life in two_processes(shared, free_port)] == [0, 0]
    ours, theirs = (
        np.asarray(Image.open(config.out / SHEET)).astype(int) for config in (alone, shared)
    )
    assert (
        ours.shape == theirs.shape and abs(ours - theirs).max() <= 2
    )  # of 255: rounded to another whole number
    rows = [
        json.loads((config.out / "loops-00000001.json").read_text())["loops"]
        for config in (alone, shared)
    ]
    assert [row["prompt"] for row in rows[1]] == [f"a square of kind {i}" for i in range(3)]
    assert [row["prompt"] for row in rows[0]] == [row["prompt"] for row in rows[1]]
    assert (shared.out / "loops-00000001.mp4").exists()


def test_what_failed_elsewhere_is_said() -> None:
    with pytest.raises(LoopAnimateError, match="process 1: the card is full"):
        in_order([[], "the card is full"])


def test_a_process_that_cannot_draw_keeps_no_other_waiting(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened(toy())
    gathered: list[object] = []

    def fail(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(run.validator, "generate_share", fail)
    monkeypatch.setattr(run.validator, "_gather", lambda mine, _: gathered.append(mine))
    before = {name: p.clone() for name, p in run.state.parameters.items()}
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run.validator.validate(run.state.ema, 1, run.accelerator)
    assert gathered == ["CUDA out of memory. Tried to allocate"]
    assert all(torch.equal(before[name], p) for name, p in run.state.parameters.items())
