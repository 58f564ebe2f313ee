"""A folder with a picture, and `animate` on a toy model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from moving_picture import disc

from loopanimate_core.cli import main
from loopanimate_core.picture.images import save_picture


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a picture."""
    monkeypatch.chdir(tmp_path)
    save_picture(disc(), tmp_path / "cat.png")
    return tmp_path


@pytest.fixture
def animate(folder: Path, toy_bundle_path: Path) -> Callable[..., int]:
    """Run `animate cat.png` with two steps and 15 frames; returns the exit code.

    The frames are shown as the model draws them: a random model draws noise, which moves nothing.
    """

    def run(*arguments: str) -> int:
        quick = ["--bundle", str(toy_bundle_path), "--frames", "15", "--steps", "2"]
        return main(["animate", "cat.png", *quick, "--detail", "off", *arguments])

    return run
