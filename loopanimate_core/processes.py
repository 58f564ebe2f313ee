"""How this process and its children end: signals as exceptions, and no child that outlives its parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP: what Ctrl-C cleans up is cleaned up for these too."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stopping_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread at the first SIGTERM or SIGHUP; more of them change nothing.

    A signal that the parent had this process ignore, as `nohup` does with SIGHUP, stays ignored. Only the
    main thread can catch signals: elsewhere they act as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped:  # a second exception would interrupt the cleaning up
            return None
        stopped = True
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    caught = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])


def end_with_parent() -> Callable[[], None] | None:
    """The `preexec_fn` of a child that the kernel kills when its parent ends in any way (Linux; None elsewhere).

    The kernel watches the thread that starts the child: that thread must wait for it.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = _prctl(), os.getpid()
    if prctl is None:
        return None

    def in_child() -> None:
        prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)

    return in_child


@cache
def _prctl() -> Any:
    """The C function, looked up before a fork: a child of a program with threads may do very little."""
    import ctypes

    try:
        return ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
