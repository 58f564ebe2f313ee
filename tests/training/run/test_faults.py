"""A run outlives kills, damaged files, a full disk, bad data and requests to stop; nothing goes unsaid."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from runs import SMOOTH, assert_close_runs, train_in_a_child
from safetensors.torch import load_file, save_file
from waiting import clock_of_bars, wait_until

from loopanimate_core.bundle import read_bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.exit_codes import ExitCode
from loopanimate_training.commands.cache import fill_cache
from loopanimate_training.config import RunConfig, SaveConfig
from loopanimate_training.loop import train
from loopanimate_training.run import heartbeat
from loopanimate_training.run.heartbeat import Heartbeat, read_heartbeat
from loopanimate_training.run.log import SMOOTHING, RunLog, read_log
from loopanimate_training.run.saver import Saver
from loopanimate_training.run.validation import Validator
from loopanimate_training.setup import make_loader
from loopanimate_training.soak import damage_newest, finish_and_compare, kill_at_random
from loopanimate_training.storage import checkpoint as checkpoint_module
from loopanimate_training.storage.checkpoint import (
    CannotSave,
    Checkpoint,
    checkpoints,
    load_latest,
    save_checkpoint,
)
from loopanimate_training.storage.jsonl import JsonlWriter
from loopanimate_training.testing import (
    ENDLESS,
    RunProcess,
    newest_step,
    two_processes,
    with_settings,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX systems")
Toy = Callable[..., RunConfig]


# ------------------------------------------------------------------------------ kills and damage
def test_twenty_kills_and_a_damaged_checkpoint_change_nothing(toy: Toy) -> None:
    config, rng = toy(steps=ENDLESS, **{"batch.accumulate": 2}), random.Random(0)
    codes, steps = [], [0]
    for _ in range(20):
        codes.append(kill_at_random(config, rng))
        steps.append(newest_step(config.out))
    assert codes == [-signal.SIGKILL] * 20
    gained = [after - before for before, after in itertools.pairwise(steps)]
    assert min(gained) >= 0 and sum(gain > 0 for gain in gained) >= 8, steps
    RunProcess(with_settings(config, steps=newest_step(config.out) + 2)).end()
    damage_newest(config.out, rng)
    assert finish_and_compare(config) is None
    assert [path.name for path in config.out.glob(".*")] == []  # nothing half done is left


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_passed_over_and_said(
    toy: Toy, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = toy(steps=2)
    train(config)
    damage_newest(config.out, random.Random(seed))
    assert newest_step(config.out) == 1
    assert "step-00000002" in caplog.text and "SHA-256" in caplog.text


def test_a_run_of_damaged_checkpoints_does_not_start_anew(toy: Toy) -> None:
    config = toy(steps=1)
    train(config)
    damage_newest(config.out, random.Random(0))
    with pytest.raises(LoopAnimateError, match=r"none of the 1 checkpoints in .* is complete"):
        train(config)


# ------------------------------------------------------------------------------------- the disk
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes in a folder of their own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for block in (b"\0" * 4096, b"\0"):
            try:
                while file.write(block):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return filler


@pytest.mark.numeric
def test_a_full_disk_pauses_the_run_and_nothing_is_lost(toy: Toy, small_disk: Path) -> None:
    config = toy(steps=ENDLESS, out=small_disk / "run")
    life = RunProcess(config)
    life.wait_for_steps(2)
    filler = fill(small_disk)
    life.wait_for_state("waiting for the disk")
    before = newest_step(config.out)
    assert before >= 1 and life.process.is_alive()
    filler.unlink()
    life.wait_for_steps(3)
    life.send(signal.SIGTERM)
    assert life.end() == 128 + signal.SIGTERM
    said = life.output.read_text()
    assert "WAITS for the disk" in said and "is saved; the run continues" in said
    assert newest_step(config.out) > before
    assert finish_and_compare(config) is None  # the log has every row too


def test_a_signal_during_the_wait_says_that_the_step_is_not_saved(
    toy: Toy, small_disk: Path
) -> None:
    config = toy(steps=ENDLESS, out=small_disk / "run", **{"save.retry_s": 60})
    life = RunProcess(config)
    life.wait_for_steps(2)
    filler = fill(small_disk)
    life.wait_for_state("waiting for the disk")
    life.send(signal.SIGTERM)
    assert life.end() == ExitCode.NOT_SAVED
    assert "was NOT saved" in life.output.read_text()
    assert (read_heartbeat(config.out) or {})["state"] == "stopped"
    filler.unlink()
    assert finish_and_compare(config) is None


def weights(size: int, step: int = 1) -> Checkpoint:
    tensor = {"unet.a": torch.ones(size)}
    return Checkpoint(step, {}, tensor, tensor, {"state": {0: {"exp_avg": torch.ones(size)}}})


@pytest.mark.parametrize("large", ["weights", "optimizer"])
def test_a_write_that_fails_half_way_leaves_the_one_before(tmp_path: Path, large: str) -> None:
    """A limit of the size of files, as a quota: free space is there and the write fails all the same."""
    save_checkpoint(tmp_path, weights(10), keep=2)
    new = weights(10, step=2)
    if large == "weights":
        new.weights["unet.a"] = torch.ones(200_000)
    else:
        new.optimizer["state"][0]["exp_avg"] = torch.ones(200_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CannotSave, match="cannot save a checkpoint"):
            save_checkpoint(tmp_path, new, keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert newest_step(tmp_path) == 1
    save_checkpoint(tmp_path, new, keep=2)
    assert newest_step(tmp_path) == 2


def test_rows_are_kept_until_there_is_space(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    rows = JsonlWriter(full)
    rows.write({"a": 1})
    rows.write({"b": float("nan")})
    with pytest.raises(OSError):
        rows.sync()
    rows.path = tmp_path / "rows.jsonl"
    rows.write({"c": 3})
    rows.sync()
    assert rows.path.read_text() == '{"a": 1}\n{"b": null}\n{"c": 3}\n'


def test_a_log_file_gets_a_line_of_progress_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = clock_of_bars(monkeypatch)
    with RunLog(tmp_path, 70, 0, None, active=True) as log:
        for _ in range(70):
            clock.advance(1.0)
            log.advance(0.5, 1.0)
    shown = [line for line in capsys.readouterr().err.split("\r") if "step" in line]
    assert [line.split("|")[2].split()[0] for line in shown] == ["0/70", "30/70", "60/70", "70/70"]
    assert "loss 0.5000" in shown[-1]


def test_a_heartbeat_is_renewed_on_a_full_disk(small_disk: Path) -> None:
    heart = Heartbeat(small_disk, 10, active=True)
    fill(small_disk)
    heart.beat(7, "waiting for the disk")
    beat = read_heartbeat(small_disk) or {}
    assert (beat["step"], beat["state"], beat["pid"]) == (7, "waiting for the disk", os.getpid())


def test_a_heartbeat_goes_on_through_long_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.02)
    heart = Heartbeat(tmp_path, 10, active=True)
    with heart.during("drawing a sheet"):
        first = read_heartbeat(tmp_path) or {}
        assert first["state"] == "drawing a sheet"
        wait_until("a beat", lambda: (read_heartbeat(tmp_path) or first)["time"] > first["time"])
    assert (read_heartbeat(tmp_path) or {})["state"] == "drawing a sheet"
    heart.beat(3)
    assert (read_heartbeat(tmp_path) or {})["state"] == "training"


def test_only_the_first_process_writes_checkpoints(tmp_path: Path) -> None:
    class Second:
        """Stands for `Requests` of a process that is not the first."""

        is_main = False

        def max_of(self, values: list[int]) -> list[int]:
            return values

    config = RunConfig.model_construct(out=tmp_path, save=SaveConfig())
    log: Any = None
    saver = Saver(config, Second(), Heartbeat(tmp_path, 1, False), log)  # type: ignore[arg-type]
    assert saver.save(5, weights(10)) and not checkpoints(tmp_path)


def test_a_run_that_fails_leaves_a_page_and_says_so(toy: Toy) -> None:
    config = toy(steps=30)
    fill_cache(config)
    poison(config, 6)
    with pytest.raises(LoopAnimateError, match="not finite"):
        train(config)
    page = (config.out / "report.html").read_text(encoding="utf-8")
    assert '<em class="failed">failed</em>' in page
    assert (read_heartbeat(config.out) or {})["state"] == "failed"


def test_a_cache_that_cannot_grow_does_not_stop_a_run(
    toy: Toy, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = toy(**{"data.cache": small_disk / "cache"})
    loader = make_loader(config, read_bundle(config.model.start), Accelerator(cpu=True))
    fill(small_disk)
    assert loader.batch(0, 0).latents.isfinite().all()
    assert "cannot write to the cache" in caplog.text
    loader.cache.must_write = True
    with pytest.raises(LoopAnimateError, match="cannot write to the cache"):
        loader.batch(0, 0)


# ------------------------------------------------------------------------------ a card without room
def test_a_sheet_that_does_not_fit_on_the_card_does_not_end_the_run(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_large(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 90.00 GiB. GPU 0")

    emptied: list[bool] = []
    monkeypatch.setattr(Validator, "validate", too_large)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    assert train(toy(steps=2, **{"validation.every_steps": 1})).step == 2
    said = capsys.readouterr().err
    assert "no validation loops: CUDA out of memory\n" in said and "no report" not in said
    assert emptied == [True, True]


# ------------------------------------------------------------------------------------- bad data
def poison(config: RunConfig, clips: int) -> list[Path]:
    """Make the latents of some cached windows NaN."""
    files = sorted((config.data.cache or Path()).rglob("*.safetensors"))
    windows = [file for file in files if "latents" in load_file(file)][:clips]
    for file in windows:
        tensors = load_file(file)
        save_file({**tensors, "latents": tensors["latents"] * float("nan")}, file)
    return windows


@pytest.mark.numeric
def test_a_nan_batch_is_left_out_and_named(toy: Toy) -> None:
    config = toy(steps=12)
    train(with_settings(config, steps=6))
    poison(config, 1)
    train(config)
    rows = read_log(config.out / "log.jsonl")
    events = [row for row in rows if "event" in row]
    assert events and all("clip" in name for row in events for name in row["clips"])
    assert [row["loss"] for row in rows if "loss" in row and row["loss"] is None]
    saved = load_latest(config.out)
    assert saved is not None and saved.step == 12
    mean = None  # of the steps that were taken
    for loss in (row["loss"] for row in rows if row.get("loss") is not None):
        mean = loss if mean is None else SMOOTHING * mean + (1 - SMOOTHING) * loss
    assert mean is not None and saved.mean_loss == pytest.approx(mean)
    assert all(tensor.isfinite().all() for tensor in saved.weights.values())


def test_nothing_but_nan_stops_the_run_with_good_checkpoints(toy: Toy) -> None:
    config = toy(steps=40)
    train(with_settings(config, steps=6))
    poison(config, 100)
    with pytest.raises(LoopAnimateError, match="not finite in 10 steps in a row"):
        train(config)
    assert (read_heartbeat(config.out) or {})["state"] == "failed"
    saved = load_latest(config.out)
    assert saved is not None and all(t.isfinite().all() for t in saved.weights.values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    bad = weights(3)
    bad.average["unet.a"][1] = float("inf")
    with pytest.raises(LoopAnimateError, match=r"unet\.a is not finite after step 1"):
        save_checkpoint(tmp_path, bad, keep=1)
    assert checkpoints(tmp_path) == []


def test_clips_that_go_bad_are_set_aside_until_they_are_too_many(toy: Toy) -> None:
    config = toy(steps=ENDLESS, **{"data.cache": "null", "data.max_bad_share": 0.4})
    life = RunProcess(config)
    life.wait_for_steps(1)
    (config.data.path / "clip1" / "2.png").write_bytes(b"not a picture")
    life.wait_for_steps(8)
    assert life.process.is_alive()
    row = json.loads((config.out / "quarantine.jsonl").read_text().splitlines()[0])
    assert "clip1" in row["clip"] and "cannot be read" in row["error"]
    (config.data.path / "clip2" / "2.png").write_bytes(b"not a picture")
    with pytest.raises(
        LoopAnimateError, match=r"2 of 3 clips could not be read, more than .* 0\.4"
    ):
        life.end()
    assert (read_heartbeat(config.out) or {})["state"] == "failed"


def test_videos_out_of_reach_end_the_run_and_once_back_it_goes_on(toy: Toy) -> None:
    config = toy(steps=ENDLESS, **{"data.cache": "null"})
    life = RunProcess(config)
    life.wait_for_steps(2)
    away = config.data.path.rename(config.data.path.with_name("away"))
    with pytest.raises(LoopAnimateError, match=r"2 of 3 clips could not be read"):
        life.end()
    stopped = newest_step(config.out)
    assert stopped >= 1
    away.rename(config.data.path)
    on = with_settings(config, steps=stopped + 1)
    with pytest.raises(LoopAnimateError, match=r"quarantine\.jsonl lists them"):
        train(on)
    (config.out / "quarantine.jsonl").unlink()
    assert train(on).step == stopped + 1


# ----------------------------------------------------------------------------- asked from outside
def test_files_ask_for_a_checkpoint_and_for_the_end(toy: Toy) -> None:
    config = toy(steps=ENDLESS, **{"save.every_steps": ENDLESS})
    life = RunProcess(config)
    life.wait_for_steps(1)
    (config.out / "save").touch()
    life.wait_until("saving on request", lambda: not (config.out / "save").exists())
    saved = newest_step(config.out)
    life.wait_for_steps(1)
    (config.out / "save_quit").touch()
    assert life.end() == 75
    assert 0 < saved < newest_step(config.out) and not (config.out / "save_quit").exists()


def test_two_runs_in_one_folder_are_refused(toy: Toy) -> None:
    config = toy(steps=ENDLESS)
    life = RunProcess(config)
    life.wait_for_steps(1)
    with pytest.raises(LoopAnimateError, match=rf"process {life.process.pid} is training in "):
        train(config)
    life.send(signal.SIGKILL)  # the next one need not wait
    life.end()
    assert train(with_settings(config, steps=newest_step(config.out) + 1)).exit_code == 0


@pytest.mark.numeric
def test_sigterm_of_one_process_stops_both_at_the_same_step(toy: Toy, free_port: int) -> None:
    config = toy(steps=ENDLESS, **{"save.every_steps": ENDLESS}, **SMOOTH)
    main, other = two_processes(config, free_port)
    main.wait_for_steps(2)
    other.send(signal.SIGTERM)
    assert [main.end(), other.end()] == [128 + signal.SIGTERM] * 2
    stopped = load_latest(config.out)
    assert stopped is not None and stopped.step >= 2

    alone = with_settings(config, steps=stopped.step, out=str(config.out.with_name("alone")))
    train_in_a_child(alone)
    assert_close_runs(config, alone)


def test_a_damaged_checkpoint_gives_way_to_the_same_step_and_nothing_is_left_over(
    tmp_path: Path,
) -> None:
    first = save_checkpoint(tmp_path, weights(10), keep=1)
    (first / checkpoint_module.STATE).write_text("damaged")
    save_checkpoint(tmp_path, weights(10), keep=1)
    assert newest_step(tmp_path) == 1 and len(list(tmp_path.iterdir())) == 1
