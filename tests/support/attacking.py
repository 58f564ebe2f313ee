"""What the standing attack counts, and how it looks at what a case left behind."""

from __future__ import annotations

import copy
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass
class Counters:
    """The counters of an attack on one surface; all but `cases` must stay zero."""

    surface: str
    cases: int = 0
    tracebacks: int = 0
    hangs: int = 0
    wrong: int = 0
    leftovers: int = 0
    code_executed: int = 0
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def case(self, name: str) -> Iterator[Callable[[str], None]]:
        """One case; yields a function that counts it as wrong and notes why."""
        self.cases += 1

        def fail(why: str) -> None:
            self.wrong += 1
            self.notes.append(f"{name}: {why}")

        try:
            yield fail
        except Exception as error:
            self.tracebacks += 1
            self.notes.append(f"{name}: {type(error).__name__}: {error}")

    @property
    def faults(self) -> int:
        return self.tracebacks + self.hangs + self.wrong + self.leftovers + self.code_executed

    def line(self) -> str:
        return (
            f"{self.surface}: {self.cases} cases, {self.tracebacks} tracebacks, {self.hangs} hangs,"
            f" {self.wrong} wrong, {self.leftovers} leftovers, {self.code_executed} code executed"
        )

    def require_zeros(self) -> None:
        """Print the counters; fail with the cases that went wrong if there are any."""
        print(self.line(), file=sys.stderr)
        assert self.cases and not self.faults, "\n".join([self.line(), *self.notes[:40]])


def control_characters(text: str) -> str:
    """The characters of a text that a terminal acts on, other than tab and new line."""
    return "".join(_CONTROLS.findall(text))


def files_below(folder: Path) -> set[Path]:
    """Every file in a folder and its subfolders."""
    return {path for path in folder.rglob("*") if not path.is_dir()}


def usual_signals() -> None:
    """The `preexec_fn` of a program that is to be stopped: a test run may have some signals ignored, as under `nohup`."""
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


# ------------------------------------------------------------------------------------ fuzzing
SURFACES = 10  # tests that use `seeds`
MINUTES = "ATTACK_MINUTES"
"""With this variable a surface is attacked for its share of the minutes, else for the given number of cases."""

SIGNALS = "ATTACK_SIGNALS"
"""With this variable at least so many signals are sent at random moments."""


def seeds(count: int, *failed: int) -> Iterator[int]:
    """The numbers of the cases: always the same ones, and the more the longer the attack is.

    Those that longer attacks found, `failed`, go first.
    """
    yield from failed
    share_s = 60 * float(os.environ.get(MINUTES, 0)) / SURFACES
    until = time.monotonic() + share_s
    for number in itertools.count():
        if number >= count and time.monotonic() > until:
            return
        yield number


def damaged(content: bytes, random: Random) -> bytes:
    """Bytes changed, removed, doubled or cut off at a few places."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        if not data:
            break
        at, length = random.randrange(len(data)), random.choice((1, 2, 4, 16, 256))
        match random.randrange(6):
            case 0:
                data[at] ^= 1 << random.randrange(8)
            case 1:
                data[at : at + length] = random.randbytes(length)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length]
            case 4:
                data[at : at + length] = random.choice((b"\xff", b"\0", b"\x7f")) * length
            case 5:
                del data[at:]
    return bytes(data)


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**30, -(10**30)),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), -float("inf")),
    *(
        "",
        "x",
        "../../x",
        "/etc/passwd",
        "\x1b[31m",
        "\ud800",
        "a" * 5000,
        "<script>alert(1)</script>",
    ),
    *([], {}, [1], [None], [[1]], {"a": 1}, {"": None}, [0] * 50, [10**9], ["x", 1]),
)


def odd(value: Any, random: Random) -> Any:
    """A copy of a JSON value in which one or two entries are of another type, out of range, missing or new."""
    changed = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 1, 2))):
        places = list(_places(changed))
        if not places:
            return _odd_value(random)
        holder, key = random.choice(places)
        match random.randrange(5):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[random.choice(("x", "", "step", "\ud800"))] = _odd_value(random)
            case _:
                holder[key] = _odd_value(random)
    return changed


def _odd_value(random: Random) -> Any:
    return copy.deepcopy(random.choice(ODD_VALUES))  # a second change may go into it


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from _places(inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value[:20]):
            yield value, index
            yield from _places(inner)
