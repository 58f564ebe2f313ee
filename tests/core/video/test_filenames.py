"""File names from a prefix, a date and a picture."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopanimate_core.video.filenames import expand_prefix, safe_stem

NOW = datetime(2026, 3, 9, 7, 5, 2)


@pytest.mark.parametrize(
    ("prefix", "picture", "expected"),
    [
        ("loops/a", None, "loops/a"),
        ("loops/a", "ghost", "loops/a_ghost"),
        ("%picture_name%/loop", "ghost", "ghost/loop"),
        ("%picture_name%/loop", None, "picture/loop"),
        ("a/%date%", None, "a/2026-03-09"),
        ("%date:yy.MM.dd_hhmmss%_%width%", "x", "26.03.09_070502_%width%_x"),
        ("a", "../../etc/passwd", "a__.._etc_passwd"),
        ("a", "%date%", "a__date_"),
        ("a", " .. ", "a"),
    ],
)
def test_prefixes(prefix: str, picture: str | None, expected: str) -> None:
    assert expand_prefix(prefix, picture, NOW) == expected


@given(st.text())
def test_a_safe_stem_is_one_name_everywhere(name: str) -> None:
    stem = safe_stem(name)
    assert len(stem) <= 80 and not set(stem) & set('<>:"/\\|?*%\0\n')
    assert stem == stem.strip(" .")
