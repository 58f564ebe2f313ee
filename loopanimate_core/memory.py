"""How much memory is left, so that work that cannot fit is refused before it starts."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import LoopAnimateError

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_bytes() -> int | None:
    """Memory that this process can still get: of the machine, its control group and its own limit.

    None where the system does not tell.
    """
    limits = [_of_machine(), *(_of_group(*paths) for paths in _CGROUPS), _of_process()]
    known = [limit for limit in limits if limit is not None]
    return max(0, min(known)) if known else None


def require_memory(needed_bytes: float, what: str, remedy: str) -> None:
    """Raise LoopAnimateError if `needed_bytes` are not available.

    Args:
        what: the subject of the message, such as "sampling 34 frames of 4096 x 4096".
        remedy: what needs less.
    """
    available = available_bytes()
    if available is not None and needed_bytes > available:
        raise LoopAnimateError(
            f"{what} needs about {needed_bytes / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are"
            f" free; {remedy}"
        )


def _of_machine() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _of_group(limit: str, usage: str) -> int | None:
    try:
        most, used = Path(limit).read_text().strip(), Path(usage).read_text().strip()
    except OSError:
        return None
    return int(most) - int(used) if most.isdecimal() and used.isdecimal() else None


def _of_process() -> int | None:
    """What `ulimit -v` leaves."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError, ValueError):
        return None
    return None if most == resource.RLIM_INFINITY else most - pages * os.sysconf("SC_PAGE_SIZE")
