"""The ranges of a loop's settings, each in one place, without heavy imports: commands check options before any work."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from .errors import LoopAnimateError

MAX_SEED = 2**64 - 1
MAX_STEPS = 1000
MAX_GUIDANCE = 100
MAX_CHAIN = 1000
"""Loops that one command joins."""
MAX_PROMPT = 10_000
"""Characters; the text encoder reads the first 77 tokens."""


def check_seed(name: str, seed: Any, loops: int = 1) -> None:
    """Refuse a first seed from which `loops` loops cannot have one each.

    Raises:
        LoopAnimateError: it is not a whole number from 0 to 2⁶⁴ - `loops`.
    """
    check_whole(name, seed, 0, MAX_SEED - loops + 1)


def check_whole(name: str, value: Any, lowest: int, highest: float) -> None:
    """As `check_number`, of a whole number."""
    if not isinstance(value, Integral):
        raise LoopAnimateError(f"{name} must be a whole number, got {value!r}")
    check_number(name, value, lowest, highest)


def check_number(name: str, value: Any, lowest: float, highest: float) -> None:
    """Refuse a value outside `lowest` … `highest`.

    Raises:
        LoopAnimateError: it is less, more, NaN or no number.
    """
    if isinstance(value, Real) and lowest <= value <= highest:  # type: ignore[operator]
        return
    legal = f"at least {lowest}" if highest == math.inf else f"between {lowest} and {highest}"
    raise LoopAnimateError(f"{name} must be {legal}, got {value!r}")
