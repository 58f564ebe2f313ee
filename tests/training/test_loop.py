"""Whole runs at toy size: settings, signals, the three stages on real files, several processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import SMOOTH, assert_close_runs, train_in_a_child
from waiting import HANGS_S, wait_until

from loopanimate_core.bundle import bundle_info, read_bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_training.config import RunConfig
from loopanimate_training.data.batch import Batch
from loopanimate_training.data.loader import ClipLoader
from loopanimate_training.loop import train
from loopanimate_training.model.export import export_bundle
from loopanimate_training.run.log import read_log
from loopanimate_training.storage.checkpoint import Checkpoint, load_checkpoint, load_latest
from loopanimate_training.testing import difference, two_processes

pytestmark = pytest.mark.numeric

MakeRun = Callable[..., RunConfig]
ALL = {"model.train": "[all]", "model.train_text_encoder": True}


def latest(run: Path) -> Checkpoint:
    found = load_latest(run)
    assert found is not None
    return found


def losses(run: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_log(run / "log.jsonl")]


def test_accumulation_equals_a_larger_batch(make_run: MakeRun, tmp_path: Path) -> None:
    settings = {"steps": 2, **ALL, **SMOOTH}
    one = make_run(out=tmp_path / "one", **settings, **{"batch.size": 4})
    two = make_run(out=tmp_path / "two", **settings, **{"batch.size": 2, "batch.accumulate": 2})
    for config in (one, two):
        train(config)
    assert_close_runs(two, one)


def test_the_log_says_how_long_steps_waited_for_their_clips(
    toy: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = ClipLoader.batch

    def slow(self: ClipLoader, step: int, micro: int) -> Batch:
        if step == 0:  # nothing is prepared yet: the step waits for all of it
            time.sleep(0.1)
        return batch(self, step, micro)

    monkeypatch.setattr(ClipLoader, "batch", slow)
    config = toy(steps=3, log_every_steps=2)
    train(config)
    rows = read_log(config.out / "log.jsonl")
    assert [row["step"] for row in rows] == [2, 3]
    assert rows[0]["data_wait_s"] >= 0.05 and rows[1]["data_wait_s"] >= 0  # a mean over two steps


def test_another_configuration_is_refused(make_run: MakeRun) -> None:
    train(make_run(steps=1))
    with pytest.raises(
        LoopAnimateError, match=r"holds a run with optimizer.lr = 0.0002, not 0.001"
    ):
        train(make_run(steps=2, **{"optimizer.lr": 1e-3}))
    assert train(make_run(steps=2, **{"optimizer.lr": 1e-3}), allow_change=True).step == 2


def test_three_stages_hand_over_to_a_bundle_that_animates(
    make_run: MakeRun, tmp_path: Path
) -> None:
    start = None
    for stage in (1, 2, 3):
        settings = {} if start is None else {"model.start": start}
        config = make_run(
            stage, out=tmp_path / f"stage{stage}", steps=2, **settings, **{"batch.size": 1}
        )
        train(config)
        start = config.out

    target = tmp_path / "loop.safetensors"
    assert export_bundle(tmp_path / "stage3", target, torch.float32) == 2
    info = bundle_info(target)
    assert info.config.frames == (15, 21, 35) and info.config.height_px == 32
    assert [run["stage"] for run in info.provenance["training"]] == [1, 2, 3]
    assert str(tmp_path) not in json.dumps(info.provenance)

    bundle, third = read_bundle(target), latest(tmp_path / "stage3")
    weights = {f"unet.{name}": p for name, p in bundle.unet.named_parameters()}
    assert all(torch.equal(weights[name], value) for name, value in third.average.items())
    first = latest(tmp_path / "stage1")
    cab = next(name for name in first.average if ".attentions." in name)
    assert torch.equal(weights[cab], first.average[cab])

    loop = LoopAnimatePipeline(bundle)(torch.rand(40, 40, 3), "a square", mask="none", seed=0)
    assert loop.frames.shape == (34, 32, 32, 3) and loop.frames.isfinite().all()


def test_sheets_use_the_average_and_do_not_change_training(
    make_run: MakeRun, tmp_path: Path
) -> None:
    plain = make_run(out=tmp_path / "plain", steps=4, **ALL)
    drawn = make_run(
        out=tmp_path / "drawn",
        steps=4,
        **ALL,
        **{"validation.every_steps": 2, "validation.steps": 2},
    )
    train(plain)
    train(drawn)
    assert sorted(path.name for path in drawn.out.glob("sheet-*")) == [
        "sheet-00000002.png",
        "sheet-00000004.png",
    ]
    assert difference(latest(plain.out), latest(drawn.out)) is None


def command(config: RunConfig, file: Path) -> list[str]:
    file.write_text(json.dumps(config.model_dump(mode="json")))  # JSON is YAML
    return [
        sys.executable,
        "-m",
        "loopanimate_training",
        "--stage",
        str(config.stage),
        "--config",
        str(file),
    ]


def test_sigterm_saves_and_the_same_command_resumes(make_run: MakeRun, tmp_path: Path) -> None:
    config = make_run(steps=500, **ALL)
    process = subprocess.Popen(
        command(config, tmp_path / "run.yaml"), stderr=subprocess.PIPE, text=True
    )
    wait_until("three steps", lambda: process.poll() is not None or len(losses(config.out)) >= 3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=HANGS_S)
    assert process.returncode == 128 + signal.SIGTERM, errors
    stopped = latest(config.out).step
    assert 3 <= stopped < 500 and f"stopped at step {stopped} of 500" in errors

    more = make_run(steps=stopped + 2, **ALL)
    assert train(more).step == stopped + 2
    assert [step for step, _ in losses(config.out)] == list(range(1, stopped + 3))


def test_two_processes_take_the_same_steps(
    make_run: MakeRun, tmp_path: Path, free_port: int
) -> None:
    """Two micro-batches per step: gradients are reduced over processes only at the last one."""
    settings = {"steps": 3, "batch.size": 2, "batch.accumulate": 2, **SMOOTH}
    alone, shared = (make_run(out=tmp_path / name, **settings) for name in ("alone", "shared"))
    train_in_a_child(alone)
    assert [life.end() for life in two_processes(shared, free_port)] == [0, 0]
    assert_close_runs(shared, alone)


def test_mistakes_on_the_command_line_are_one_sentence(make_run: MakeRun, tmp_path: Path) -> None:
    config = make_run(**{"model.start": tmp_path / "absent.safetensors"})
    result = subprocess.run(
        command(config, tmp_path / "run.yaml"), capture_output=True, text=True, check=False
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "absent.safetensors" in result.stderr
    with pytest.raises(LoopAnimateError, match="is not a complete checkpoint"):
        load_checkpoint(tmp_path)


def test_a_run_of_several_shapes_resumes_exactly(
    toy: Callable[..., RunConfig], tmp_path: Path
) -> None:
    toy()
    for clip, size in enumerate([(48, 32), (32, 48)]):
        for file in (tmp_path / "frames" / f"clip{clip}").iterdir():
            with Image.open(file) as picture:
                picture.resize(size).save(file)
    shapes = {"clip.shapes": "[[32, 32], [40, 24], [24, 40]]", "batch.size": 1}
    whole, parts = (tmp_path / name for name in ("whole", "parts"))
    train(toy(out=whole, steps=6, **shapes))
    for steps in (2, 3, 6):
        train(toy(out=parts, steps=steps, **shapes))
    assert difference(latest(whole), latest(parts)) is None
    export_bundle(whole, target := tmp_path / "shaped.safetensors")
    assert bundle_info(target).config.shapes == ((32, 32), (40, 24), (24, 40))
    with pytest.raises(LoopAnimateError, match=r"holds a run with clip\.shapes"):
        train(toy(out=parts, steps=7, **{"batch.size": 1}))
