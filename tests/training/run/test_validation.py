"""Validation sheets: each process makes its share of the loops, the first one collects them."""

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
from loopanimate_training.run.validation import in_one_size, in_order
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


def test_shares_are_disjoint_and_complete(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
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
    )  # of 255: rounded to a neighbouring integer
    rows = [
        json.loads((config.out / "loops-00000001.json").read_text())["loops"]
        for config in (alone, shared)
    ]
    assert [row["prompt"] for row in rows[1]] == [f"a square of kind {i}" for i in range(3)]
    assert [row["prompt"] for row in rows[0]] == [row["prompt"] for row in rows[1]]
    assert (shared.out / "loops-00000001.mp4").exists()


def test_loops_have_the_shapes_of_their_clips(toy: Toy, tmp_path: Path) -> None:
    """Films of three sizes, on one sheet and in one video."""
    toy()
    for clip, size in enumerate([(48, 32), (32, 48)]):
        for file in (tmp_path / "frames" / f"clip{clip}").iterdir():
            with Image.open(file) as picture:
                picture.resize(size).save(file)
    run = opened(toy(**{"clip.shapes": "[[32, 32], [40, 24], [24, 40]]"}))
    run.config.out.mkdir()
    run.validator.validate(run.state.ema, 1, run.accelerator)
    loops = run.validator.generate_share(0, 1)
    assert [tuple(loop.frames.shape[1:3]) for loop in loops] == [(24, 40), (40, 24), (32, 32)]
    with Image.open(run.config.out / SHEET) as sheet:
        assert sheet.size == (9 * (40 + 4) + 4, 3 * (40 + 4) + 4)
    for loop, filled in zip(loops, in_one_size(loops), strict=True):
        assert tuple(filled.picture.shape) == (40, 40, 3)
        height_px, width_px = loop.picture.shape[:2]
        top, left = (40 - height_px) // 2, (40 - width_px) // 2
        inner = filled.frames[:, top : top + height_px, left : left + width_px]
        assert torch.equal(inner, loop.frames)
        margin = int(filled.picture.sum()) - int(loop.picture.sum())
        assert margin == 255 * 3 * (40 * 40 - height_px * width_px)


def test_pictures_of_ones_own_follow_the_clips(toy: Toy, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    cut_out = Image.new("RGBA", (48, 24))
    cut_out.paste((200, 80, 20, 255), (16, 8, 32, 24))
    cut_out.save(folder / "b.png")
    Image.new("RGB", (40, 40), "navy").save(folder / "a.png")
    (folder / "a.txt").write_text("bobbing\n")
    settings = {"validation.pictures": folder, "clip.mask": "object", "clip.height_px": 32}
    with pytest.raises(LoopAnimateError, match=r"b\.png needs its prompt in b\.txt"):
        opened(toy(**settings))
    (folder / "b.txt").write_text("swaying")
    validator = opened(toy(**settings)).validator
    loops = in_order([validator.generate_share(1, 2), validator.generate_share(0, 2)])
    assert [loop.row["prompt"] for loop in loops[3:]] == ["bobbing", "swaying"]
    assert [loop.number for loop in loops] == [0, 1, 2, 3, 4]
    assert loops[3].row["object_share"] == 1.0  # nothing stands out
    assert 0.2 < float(loops[4].row["object_share"]) < 0.8  # type: ignore[arg-type]
    (tmp_path / "run").mkdir()
    validator._save(loops, 1)
    with Image.open(tmp_path / "run" / SHEET) as sheet:
        assert sheet.size == (10 * (32 + 4) + 4, 5 * (32 + 4) + 4)


def test_errors_of_other_processes_are_reported() -> None:
    with pytest.raises(LoopAnimateError, match="process 1: the card is full"):
        in_order([[], "the card is full"])


def test_a_process_that_fails_does_not_block_the_others(
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
