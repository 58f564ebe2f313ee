"""How often progress bars are refreshed."""

from __future__ import annotations

import sys

TERMINAL_S, FILE_S = 0.2, 30.0


def refresh_s() -> float:
    """Seconds between two states of a progress bar: short in a terminal, long when written to a log file."""
    return TERMINAL_S if sys.stderr.isatty() else FILE_S
