"""What the standing attack counts, and how it looks at what a case left behind."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
