"""The memory that a piece of work takes at its highest (Linux)."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path

import pytest

_PROCESS = Path("/proc/self")


def peak_growth_bytes(work: Callable[[], object]) -> int:
    """How far above its size before the work this process grew; skips the test where the system does not tell."""
    gc.collect()
    try:
        (_PROCESS / "clear_refs").write_text("5")  # the peak so far is forgotten
        before = _figure("VmRSS")
        work()
        return _figure("VmHWM") - before
    except OSError as error:
        pytest.skip(f"/proc does not tell the peak of a process here: {error}")


def _figure(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", (_PROCESS / "status").read_text(), re.MULTILINE)
    if found is None:
        pytest.skip(f"/proc/self/status has no {name}")
    return int(found[1]) * 1024
