"""File names from a prefix that may contain the date and the name of the source picture."""

from __future__ import annotations

import re
from datetime import datetime

MAX_STEM = 80
MAX_STEM_BYTES = 200  # file systems hold names of 255 bytes
# On some system, in a terminal, or in UTF-8 (a name with other bytes has halves of surrogate pairs).
_FORBIDDEN = re.compile(
    r'[<>:"/\\|?*%\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]'
)
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

    If the prefix has no `%picture_name%`, the name is appended. Other `%…%` are not changed.
    """
    expanded = _DATE.sub(lambda found: _date(found[1] or "yyyy-MM-dd", now), prefix)
    stem = safe_stem(picture_name or "")
    if PICTURE in expanded:
        return expanded.replace(PICTURE, stem or "picture")
    return f"{expanded}_{stem}" if stem else expanded


def safe_stem(name: str) -> str:
    """The name with characters replaced that some system does not allow in file names; may be empty."""
    stem = _FORBIDDEN.sub("_", name)[:MAX_STEM]
    return stem.encode()[:MAX_STEM_BYTES].decode(errors="ignore").strip(" .")


def _date(layout: str, now: datetime) -> str:
    parts = re.sub("|".join(_DATE_PARTS), lambda part: now.strftime(_DATE_PARTS[part[0]]), layout)
    return _FORBIDDEN.sub("-", parts)
