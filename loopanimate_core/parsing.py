"""Typed reading of values from outside: JSON of servers, headers, states and logs.

Each edge has one reader that turns text into a dataclass. It takes its fields from a `Fields`, which checks
type, size and range and names what is wrong, so that no other code meets a value of another kind.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from .errors import LoopAnimateError

MAX_TEXT = 10_000
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_MISSING: Any = object()


class MalformedError(LoopAnimateError):
    """Something from outside does not have the form that it must have; the message names it."""


def plain_text(value: object, max_length: int = 300) -> str:
    """Any value as one line that is safe to show: no control characters, no half characters, not too long.

    Control characters of a terminal can move the cursor, change its title or type for the user.
    """
    text = _CONTROLS.sub(" ", str(value)[: 4 * max_length])
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def is_text(value: object) -> bool:
    """Whether a value is text that can be written as UTF-8."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, or a byte of a name that is not UTF-8
        return False
    return True


def parse_json(content: bytes | str, what: str, *, finite: bool = True) -> Any:
    """The value of a JSON text.

    Args:
        what: the subject of the message, such as "the server's answer".
        finite: refuse NaN and Infinity, which are not JSON.

    Raises:
        MalformedError: it is not JSON, is not UTF-8, or is nested too deeply.
    """
    options: Any = {"parse_constant": _refuse_constant} if finite else {}
    try:
        if isinstance(content, bytes):
            content = content.decode("utf-8-sig")
        return json.loads(content, **options)
    except RecursionError:
        raise MalformedError(f"{what} is nested too deeply") from None
    except ValueError as error:  # also UnicodeDecodeError, and numbers of thousands of digits
        raise MalformedError(f"{what} is not JSON ({plain_text(error, 100)})") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class Fields:
    """A JSON object from outside, read field by field.

    Args:
        values: the object.
        what: the subject of messages, such as "the server's answer".

    Raises:
        MalformedError: `values` is not an object; every method raises it too, with the field's name.
    """

    def __init__(self, values: object, what: str) -> None:
        self.what = what
        if not isinstance(values, Mapping):
            raise MalformedError(f"{what} must be an object, got {_kind(values)}")
        self.values: Mapping[str, Any] = values

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def text(
        self, name: str, default: str = _MISSING, *, low: int = 0, high: int = MAX_TEXT
    ) -> str:
        """Text of `low` to `high` characters that can be written as UTF-8."""
        value = self._get(name, default)
        if not is_text(value) or not low <= len(value) <= high:
            self._refuse(name, f"text of {low} to {high} characters", value)
        return value

    def choice(self, name: str, choices: tuple[str, ...], default: str = _MISSING) -> str:
        """One of `choices`."""
        value = self._get(name, default)
        if not isinstance(value, str) or value not in choices:
            self._refuse(name, f"one of {', '.join(choices)}", value)
        return value

    def whole(self, name: str, low: int, high: int, default: int = _MISSING) -> int:
        """A whole number from `low` to `high`."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self._refuse(name, f"a whole number from {low} to {high}", value)
        return value

    def number(self, name: str, low: float, high: float, default: float = _MISSING) -> float:
        """A finite number from `low` to `high`."""
        value = self._get(name, default)
        legal = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (legal and low <= value <= high and abs(value) < math.inf):
            self._refuse(name, f"a number from {low:g} to {high:g}", value)
        return float(value)

    def items(self, name: str, high: int, default: list[Any] = _MISSING) -> list[Any]:
        """A list of at most `high` entries."""
        value = self._get(name, default)
        if not isinstance(value, (list, tuple)) or len(value) > high:
            self._refuse(name, f"a list of at most {high} entries", value)
        return list(value)

    def fields(self, name: str, default: Mapping[str, Any] = _MISSING) -> Fields:
        """An object within this one."""
        value = self._get(name, default)
        if not isinstance(value, Mapping):
            self._refuse(name, "an object", value)
        return Fields(value, f"{name!r} of {self.what}")

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is not None:
            return value
        if default is _MISSING:
            raise MalformedError(f"{self.what} has no {name!r}")
        return default

    def _refuse(self, name: str, legal: str, value: object) -> NoReturn:
        raise MalformedError(
            f"{plain_text(name, 80)!r} of {self.what} must be {legal}, got {_shown(value)}"
        )


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "another kind")


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of more than 70 digits"
    if isinstance(value, (list, Mapping)):
        return _kind(value)
    return plain_text(repr(value), 60)
