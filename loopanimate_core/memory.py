"""How much memory is left, so that work that cannot fit is refused before it starts."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import LoopAnimateError

# Folder, limit and use of a control group, of both versions.
_CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def available_bytes() -> int | None:
    """Memory that this process can still get: of the machine, its control group and its own limit.

    None where the system does not tell.
    """
    limits = [_of_machine(), *map(_of_group, _CGROUPS), _of_process()]
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


def _of_group(names: tuple[str, str, str]) -> int | None:
    folder = Path(names[0])
    try:
        most, used = ((folder / name).read_text().strip() for name in names[1:])
        figures = (folder / "memory.stat").read_text()
    except OSError:
        return None
    if not (most.isdecimal() and used.isdecimal()):
        return None
    # Contents of files that are kept in memory count as used, but give way.
    cached = re.findall(r"^(?:active|inactive)_file (\d+)$", figures, re.MULTILINE)
    return int(most) - int(used) + sum(map(int, cached))


def _of_process() -> int | None:
    """What `ulimit -v` leaves."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError, ValueError):
        return None
    return None if most == resource.RLIM_INFINITY else most - pages * os.sysconf("SC_PAGE_SIZE")
