"""How this process and its children end: signals as exceptions, and no child that outlives its parent."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
REPEAT_S = 2.0  # a terminal and a launcher may both pass on the same Ctrl-C
INSIST_S = 0.1


class Stopped(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP: each cleans up what Ctrl-C cleans up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stopping_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread at the first SIGINT, SIGTERM or SIGHUP; more of them change nothing.

    Only another Ctrl-C, two seconds later, raises again: it ends a clean-up that takes too long.

    A signal that the parent had this process ignore, as `nohup` does with SIGHUP, stays ignored. Only the
    main thread can catch signals: elsewhere they act as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopping, show = _Stopping(), sys.unraisablehook

    def show_others(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, Stopped):  # that one comes again
            show(unraisable)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    usual = (signal.SIG_DFL, signal.default_int_handler)
    caught = [number for number, handler in before.items() if handler in usual]
    for number in caught:
        signal.signal(number, stopping)
    sys.unraisablehook = show_others
    try:
        yield
    finally:
        stopping.ended = True
        sys.unraisablehook = show
        for number in caught:
            signal.signal(number, before[number])


class _Stopping:
    """A signal's handler that raises `Stopped` until it is heard.

    The interpreter drops what is raised where no caller can get it: in the callbacks after a fork, in `__del__`;
    and libraries drop it in `except:`. A dropped exception is gone from memory, one that is on its way is not.
    """

    def __init__(self) -> None:
        self.ended = False
        self._raised: weakref.ref[Stopped] | None = None
        self._first_s = 0.0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._raised is None:
            self._first_s = now_s
            # No `threading.Thread`: its locks may be held by the code that this handler interrupts.
            with suppress(RuntimeError):
                _thread.start_new_thread(self._insist, (number,))
        elif self._raised() is not None and (
            number != signal.SIGINT or now_s - self._first_s < REPEAT_S
        ):
            return  # a second exception would interrupt the cleaning up
        raise self._new(number)  # no variable may hold it, or it would stay in memory

    def _new(self, number: int) -> Stopped:
        error = Stopped(number)
        self._raised = weakref.ref(error)
        return error

    def _insist(self, number: int) -> None:
        """Send the signal again, also to a main thread that waits for a system call."""
        while not self.ended:
            time.sleep(INSIST_S)
            dropped = self._raised is not None and self._raised() is None
            if dropped and not self.ended and hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, number)


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
