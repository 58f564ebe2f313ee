"""Waiting for events without tight time limits, and a clock that tests advance by hand."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tqdm import tqdm

HANGS_S = 600.0
"""Long enough to be a hang on any machine. It stops a stuck test; no result depends on it."""


def wait_until(
    what: str, holds: Callable[[], object], poll_s: float = 0.02, limit_s: float = HANGS_S
) -> None:
    """Return once `holds()` is true; TimeoutError after `limit_s`."""
    until = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {limit_s:.0f} s")
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
    """Progress bars created from now on read the time from the returned clock."""
    clock = ManualClock()
    if tqdm.monitor is not None:  # its thread redraws bars in real time
        tqdm.monitor.exit()
        monkeypatch.setattr(tqdm, "monitor", None)
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock
