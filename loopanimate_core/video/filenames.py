"""File names from a prefix that people type, with dates and the source picture's name in it."""

from __future__ import annotations

import re
from datetime import datetime

MAX_STEM = 80
_FORBIDDEN = re.compile(r'[<>:"/\\|?*%\x00-\x1f\x7f]')  # on one system or another
_DATE = re.compile(r"%date(?::([^%]*))?%")
_DATE_PARTS = {
    "yyyy": "%Y",
    "yy": "%y",
    "MM": "%m",
    "dd": "%d",
    "hh": "%H",
    "mm": "%M",
    "ss": "%S",
}
PICTURE = "%picture_name%"


def expand_prefix(prefix: str, picture_name: str | None, now: datetime) -> str:
    """The prefix with `%date%`, `%date:yyyy-MM-dd_hhmmss%` and `%picture_name%` filled in.

    A picture's name that the prefix has no place for is appended. Other `%…%` are left to the caller.
    """
    expanded = _DATE.sub(lambda found: _date(found[1] or "yyyy-MM-dd", now), prefix)
    stem = safe_stem(picture_name or "")
    if PICTURE in expanded:
        return expanded.replace(PICTURE, stem or "picture")
    return f"{expanded}_{stem}" if stem else expanded


def safe_stem(name: str) -> str:
    """The name without what a file's name cannot hold on some system; may be empty."""
    return _FORBIDDEN.sub("_", name)[:MAX_STEM].strip(" .")


def _date(layout: str, now: datetime) -> str:
    parts = re.sub("|".join(_DATE_PARTS), lambda part: now.strftime(_DATE_PARTS[part[0]]), layout)
    return _FORBIDDEN.sub("-", parts)
