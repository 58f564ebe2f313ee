"""Locks: held by one process, and taken over when a process has died."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from pathlib import Path

import pytest

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.storage import locks
from loopanimate_training.storage.locks import claim_of, locked


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with locked(tmp_path / "a.lock", poll_s=0.005):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and not list(tmp_path.iterdir())
    abandoned = tmp_path / "b.lock"
    abandoned.write_text("process 1 on another machine")
    os.utime(abandoned, (0, time.time() - 90))
    with locked(abandoned):
        assert "process 1 on" not in abandoned.read_text()


@pytest.mark.parametrize("crash_while_taking_over", [False, True])
def test_an_abandoned_lock_is_taken_over_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_while_taking_over: bool
) -> None:
    """Waiters that find it abandoned at the same moment must not remove each other's new locks."""
    lock, inside, overlaps, turns = tmp_path / "a.lock", [0], [0], [0]
    barrier, age_s = threading.Barrier(12), locks._age_s

    def slow_age_s(path: Path) -> float:  # a network's folder: what was seen may be over by now
        found = age_s(path)
        time.sleep(random.uniform(0, 0.005))
        return found

    monkeypatch.setattr(locks, "_age_s", slow_age_s)

    def work() -> None:
        barrier.wait()
        with locked(lock, poll_s=0.001):
            inside[0] += 1
            overlaps[0] += inside[0] > 1
            time.sleep(0.001)
            turns[0] += 1
            inside[0] -= 1

    for _ in range(8):
        for path in (lock, claim_of(lock))[: 1 + crash_while_taking_over]:
            path.write_text("process 1 on another machine")
            os.utime(path, (0, time.time() - 90))
        threads = [threading.Thread(target=work) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert overlaps == [0] and turns == [96] and not list(tmp_path.iterdir())


def test_a_holder_that_was_thought_gone_leaves_the_lock_of_the_next(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    with locked(lock):
        lock.unlink()
        lock.write_text("process 1 on another machine")
        os.utime(lock, (0, 1000))
    assert lock.read_text() == "process 1 on another machine" and lock.stat().st_mtime == 1000


def test_a_lock_that_the_disk_does_not_take_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LoopAnimateError, match="No space left on device"), locked(tmp_path / "a"):
        pass
    assert not list(tmp_path.iterdir())
