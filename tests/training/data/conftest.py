"""A small data set of films."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

Films = Any  # the fixture of ../conftest.py


@pytest.fixture
def folder(films: Films, tmp_path: Path) -> Path:
    """Five films of 24 frames with captions."""
    for number in range(5):
        films.write(tmp_path / f"films/{number}.mp4", 24, first=10 * number)
        (tmp_path / f"films/{number}.txt").write_text(f"film {number}")
    return tmp_path / "films"
