"""Stopping or saving on request, between two steps instead of anywhere.

A request is a signal (SIGTERM, Ctrl-C) that any process has caught, or a file named `save` or
`save_quit` in the run's folder. All processes hear of it at the same step.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAVE_FILE, QUIT_FILE = "save", "save_quit"
REPEAT_S = 2.0  # a terminal and a launcher may both pass on the same Ctrl-C


@dataclass(frozen=True)
class Request:
    """What was asked for; `signal_number` is 0 without a signal."""

    save: bool = False
    quit: bool = False
    signal_number: int = 0

    @property
    def stops(self) -> bool:
        return self.quit or self.signal_number > 0

    @property
    def saves(self) -> bool:
        return self.save or self.stops


class Requests:
    """Collects requests and makes processes agree on them.

    Args:
        caught: numbers of the signals that this process has caught.
    """

    def __init__(self, accelerator: Accelerator, run: Path, caught: Sequence[int]) -> None:
        self._accelerator, self._run, self._caught = accelerator, run, caught
        self.is_main = accelerator.is_main_process

    def poll(self) -> Request:
        """What has been asked for up to now; all processes must call it, and get the same answer."""
        files = [self.is_main and os.path.exists(self._run / n) for n in (SAVE_FILE, QUIT_FILE)]
        save, leave, number = self.agree([*files, self._caught[0] if self._caught else 0])
        return Request(bool(save), bool(leave), number)

    def done(self, request: Request) -> None:
        """Remove the files of a request that has been met."""
        for name, asked in ((SAVE_FILE, request.save), (QUIT_FILE, request.quit)):
            if asked and self.is_main:
                with suppress(OSError):  # gone, or out of reach
                    (self._run / name).unlink()

    def agree(self, values: Sequence[int]) -> list[int]:
        """The largest of each value over all processes."""
        if self._accelerator.num_processes == 1:
            return [int(value) for value in values]
        mine = torch.tensor([[int(v) for v in values]], device=self._accelerator.device)
        everyones = self._accelerator.gather(mine)
        assert isinstance(everyones, torch.Tensor)
        return everyones.amax(0).tolist()

    def sleep(self, seconds: float) -> None:
        """Wait, but not after a signal."""
        until = time.monotonic() + seconds
        while not self._caught and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying; one of the same kind seconds later acts as usual.

    Only a process's main thread can do so; elsewhere (workers of a cluster) signals act as usual.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    first_s: dict[int, float] = {}

    def remember(number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if now - first_s.setdefault(number, now) > REPEAT_S:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        elif number not in caught:
            caught.append(number)

    for number in SIGNALS:
        signal.signal(number, remember)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
