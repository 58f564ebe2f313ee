"""Lock files: one process works while the others wait, also on machines that share a folder."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loopanimate_core.errors import LoopAnimateError

_log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, stale_s: float = 60.0, poll_s: float = 0.2) -> Iterator[None]:
    """Holds the lock file `path` while the block runs; waits while another process holds it.

    The holder keeps touching the file. A lock that was not touched for `stale_s` seconds, or whose process on
    this machine is gone, was left by a crash and is taken over.

    Raises:
        LoopAnimateError: the folder cannot be written.
    """
    waited = False
    while (mine := _take(path)) is None:
        if not waited:
            _log.warning("waiting for %s, which holds %s", _holder(_content(path)), path)
        waited = True
        if not (_is_abandoned(path, stale_s) and _remove_abandoned(path, stale_s)):
            time.sleep(poll_s)
    done = threading.Event()
    toucher = threading.Thread(
        target=_keep_touching, args=(path, mine, done, stale_s / 6), daemon=True
    )
    toucher.start()
    try:
        yield
    finally:
        done.set()
        toucher.join()
        _release(path, mine)


def claim_of(path: Path) -> Path:
    """The lock that a process holds while it removes an abandoned lock."""
    return path.with_name(f"{path.name}.removal")


def _take(path: Path) -> str | None:
    """Create the lock file; returns its unique content, or None if the file exists already."""
    content = f"process {os.getpid()} on {socket.gethostname()}\n{uuid.uuid4().hex}"
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        try:
            os.write(handle, content.encode())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
    except FileExistsError:
        return None
    except OSError as error:
        raise LoopAnimateError(f"cannot write {path}: {error.strerror or error}") from error
    return content


def _release(path: Path, mine: str) -> None:
    """Remove the lock, unless another process has taken it over."""
    if _content(path) == mine:
        path.unlink(missing_ok=True)


def _remove_abandoned(path: Path, stale_s: float) -> bool:
    """Remove the lock if it is still abandoned; False when another waiting process is about to.

    Checking and removing must be one operation: otherwise a process could check, another one remove and
    retake the lock, and the first then remove the other's lock. So both happen under a lock of their own,
    which may itself be left by a crash.
    """
    claim = claim_of(path)
    mine = _take(claim)
    if mine is None:
        if _is_abandoned(claim, stale_s):
            _remove_abandoned(claim, stale_s)
        return False
    try:
        if _is_abandoned(path, stale_s):
            path.unlink(missing_ok=True)
    finally:
        _release(claim, mine)
    return True


def _is_abandoned(path: Path, stale_s: float) -> bool:
    content = _content(path)
    abandoned = _age_s(path) > stale_s or _is_dead(_holder(content))
    return abandoned and _content(path) == content  # and has not been taken over in between


def is_running(pid: int) -> bool:
    """Whether a process runs on this machine; true where that cannot be found out."""
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


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _holder(content: str) -> str:
    return content.partition("\n")[0] or "another process"


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _keep_touching(path: Path, mine: str, done: threading.Event, every_s: float) -> None:
    while not done.wait(every_s) and _content(path) == mine:
        try:
            os.utime(path)
        except OSError:
            return
