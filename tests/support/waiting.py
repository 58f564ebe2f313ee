"""Clocks of tests: waiting for an event without a limit that decides, and time that only a test moves."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tqdm import tqdm

HANGS_S = 600.0
"""So long is a hang on any machine. It ends a test that would never end; no result depends on it."""


def wait_until(what: str, holds: Callable[[], object], poll_s: float = 0.02) -> None:
    """Return once `holds()` is true."""
    until = time.monotonic() + HANGS_S
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not in {HANGS_S:.0f} s")
        time.sleep(poll_s)


class ManualClock:
    """Seconds that pass when `advance` is called."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def clock_of_bars(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """Progress bars made from now on take the time from the returned clock."""
    clock = ManualClock()
    if tqdm.monitor is not None:  # its thread redraws bars by the real time
        tqdm.monitor.exit()
        monkeypatch.setattr(tqdm, "monitor", None)
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock
