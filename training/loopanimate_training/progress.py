"""How often progress is shown."""

from __future__ import annotations

import sys

TERMINAL_S, FILE_S = 0.2, 30.0


def refresh_s() -> float:
    """Seconds between two states of a progress bar: a terminal gets a bar, a log file a line now and then."""
    return TERMINAL_S if sys.stderr.isatty() else FILE_S
