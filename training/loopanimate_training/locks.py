"""One process does a piece of work, the others wait for it: also over machines that share a folder."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loopanimate_core.errors import LoopAnimateError

_log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, stale_s: float = 60.0, poll_s: float = 0.2) -> Iterator[None]:
    """Hold the lock file `path`, waiting for whoever holds it.

    The holder touches it all the time; one that was not touched for `stale_s`, or whose process on this
    machine is gone, was left by a crash.

    Raises:
        LoopAnimateError: the folder cannot be written.
    """
    waited = False
    while not _take(path):
        if not waited:
            _log.warning("waiting for %s, which holds %s", _holder(path), path)
        waited = True
        if _age_s(path) > stale_s or _is_dead(_holder(path)):
            path.unlink(missing_ok=True)
        else:
            time.sleep(poll_s)
    done = threading.Event()
    toucher = threading.Thread(target=_keep_touching, args=(path, done, stale_s / 6), daemon=True)
    toucher.start()
    try:
        yield
    finally:
        done.set()
        toucher.join()
        path.unlink(missing_ok=True)


def _take(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    except OSError as error:
        raise LoopAnimateError(f"cannot write {path}: {error.strerror or error}") from error
    with os.fdopen(handle, "w") as file:
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
    return True


def is_running(pid: int) -> bool:
    """Whether a process of this machine is there; true where it cannot be known."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_dead(holder: str) -> bool:
    found = re.fullmatch(r"process (\d+) on (.*)", holder)
    return found is not None and found[2] == socket.gethostname() and not is_running(int(found[1]))


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _keep_touching(path: Path, done: threading.Event, every_s: float) -> None:
    while not done.wait(every_s):
        try:
            os.utime(path)
        except OSError:
            return
