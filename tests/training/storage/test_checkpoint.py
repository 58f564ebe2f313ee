"""Checkpoints are complete or absent, even if writing them is interrupted."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import toy_checkpoint
from toy_checkpoint import make

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.storage import checkpoint as module
from loopanimate_training.storage.checkpoint import (
    checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)


def test_a_checkpoint_reads_back_as_saved(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, make(7), keep=2)
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.config, loaded.mean_loss) == (7, {"seed": 1}, 0.5)
    assert loaded.weights["unet.a"][0] == 7 and loaded.average["unet.a"][0] == 8
    assert loaded.optimizer["state"][0]["exp_avg"][0] == 14


def test_keeps_the_newest_and_no_temporary_files(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_checkpoint(tmp_path, make(step), keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{step:08d}" for step in (3, 4, 5)]


def test_later_checkpoints_that_are_damaged_do_not_count(tmp_path: Path) -> None:
    for step in (1, 5, 6):
        newest = save_checkpoint(tmp_path, make(step), keep=3)
        if step > 1:
            (newest / module.WEIGHTS).write_bytes(b"")
    for step in (2, 3):
        save_checkpoint(tmp_path, make(step), keep=1)
    assert [path.name[-1] for path in checkpoints(tmp_path)] == ["3", "5", "6"]
    latest = load_latest(tmp_path)
    assert latest is not None and latest.step == 3


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "no manifest"])
@pytest.mark.parametrize("name", [module.WEIGHTS, module.AVERAGE, module.OPTIMIZER, module.STATE])
def test_damage_is_detected_and_the_previous_checkpoint_is_used(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, make(1), keep=2)
    newest = save_checkpoint(tmp_path, make(2), keep=2)
    file = newest / (module.MANIFEST if damage == "no manifest" else name)
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-5])
    else:
        file.unlink()
    with caplog.at_level(logging.WARNING):
        latest = load_latest(tmp_path)
    assert latest is not None and latest.step == 1
    assert "trying the checkpoint before it" in caplog.text
    again = save_checkpoint(tmp_path, make(2), keep=2)  # the step can be saved again
    assert load_checkpoint(again).step == 2


KILLED_WHILE_SAVING = """
import os, signal, sys
from pathlib import Path
from loopanimate_training.storage import checkpoint as module
from toy_checkpoint import make
calls = 0
sync = module._sync
def dying_sync(path):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(path)
module._sync = dying_sync
module.save_checkpoint(Path({run!r}), make(2), keep=1)
"""


@pytest.mark.parametrize("call", [1, 4, 6])
def test_kill_while_saving_keeps_the_previous_checkpoint(tmp_path: Path, call: int) -> None:
    save_checkpoint(tmp_path, make(1), keep=1)
    code = KILLED_WHILE_SAVING.format(run=str(tmp_path), call=call)
    environment = {**os.environ, "PYTHONPATH": str(Path(toy_checkpoint.__file__).parent)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert result.returncode == -signal.SIGKILL
    latest = load_latest(tmp_path)
    assert latest is not None and latest.step == 1
    save_checkpoint(tmp_path, make(3), keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003"]


def test_full_disk_is_reported_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, make(1), keep=1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    with pytest.raises(LoopAnimateError, match=r"a checkpoint needs \d+ MiB"):
        save_checkpoint(tmp_path, make(2, size=10**6), keep=1)
    latest = load_latest(tmp_path)
    assert latest is not None and latest.step == 1


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_files_have_the_permissions_of_other_files(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        path = save_checkpoint(tmp_path, make(1), keep=1)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o666 & ~mask}


def test_a_folder_that_cannot_be_created_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LoopAnimateError, match="cannot save a checkpoint"):
        save_checkpoint(tmp_path / "file" / "run", make(1), keep=1)
