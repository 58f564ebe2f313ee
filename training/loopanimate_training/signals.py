"""Stopping a run between two steps: signals, requests to save or quit, and how a run ended."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from loopanimate_core.exit_codes import ExitCode

SIGNALS = (signal.SIGTERM, signal.SIGINT, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))
SAVE_FILE, QUIT_FILE = "save", "save_quit"  # in the run's folder, made by the user
REPEAT_S = 2.0  # a terminal and a launcher may both pass on the same Ctrl-C


@dataclass(frozen=True)
class Request:
    """What was asked for; `signal_number` is 0 without a signal.

    `unsaved` is True when a checkpoint could not be written in the background, so that one is due now.
    """

    save: bool = False
    quit: bool = False
    signal_number: int = 0
    unsaved: bool = False

    @property
    def stops(self) -> bool:
        """Whether the run ends after this step."""
        return self.quit or self.signal_number > 0

    @property
    def saves(self) -> bool:
        """Whether the run saves after this step."""
        return self.save or self.unsaved or self.stops


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after its last step, or with a `request` to stop.

    `saved` is False when it was stopped while the disk was full, before its checkpoint could be written.
    """

    step: int
    steps: int
    request: Request = field(default_factory=Request)
    saved: bool = True

    @property
    def exit_code(self) -> int:
        """The exit code of the process; 128 + the number of the signal that stopped the run."""
        if not self.saved:
            return ExitCode.NOT_SAVED
        if self.step == self.steps or not self.request.stops:
            return ExitCode.OK
        number = self.request.signal_number
        return 128 + number if number else ExitCode.ASKED_TO_QUIT


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect the numbers of SIGTERM, SIGINT and SIGHUP instead of ending the process.

    A SIGHUP that the process ignores, as under `nohup`, stays ignored.

    The same signal again, more than two seconds later, acts as usual. Only the main thread of a process can
    catch signals; in other threads (workers of a cluster) they act as usual.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    if hasattr(signal, "SIGHUP") and before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    first_s: dict[int, float] = {}

    def remember(number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if now - first_s.setdefault(number, now) > REPEAT_S:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        elif number not in caught:
            caught.append(number)

    for number in before:
        signal.signal(number, remember)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
