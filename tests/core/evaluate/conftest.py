"""A test set of two pictures with loops of them, and the command on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from moving_picture import disc, swaying

from loopanimate_core.cli import main
from loopanimate_core.picture.images import save_picture
from loopanimate_core.video import write_video


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `pictures/` and two tools' videos: `svd/`, which close, and `cut/`, which do not."""
    monkeypatch.chdir(tmp_path)
    for name in ("pictures", "svd", "cut"):
        (tmp_path / name).mkdir()
    for name in ("cat", "dog"):
        save_picture(disc(), tmp_path / "pictures" / f"{name}.png")
        (tmp_path / "pictures" / f"{name}.txt").write_text(f"a {name} swaying")
        write_video(swaying(), tmp_path / "svd" / f"{name}.webm", fps=4, repeats=2)
        write_video(swaying(36)[:18], tmp_path / "cut" / f"{name}.mp4", fps=4, repeats=1)
    return tmp_path


@pytest.fixture
def evaluate(folder: Path, toy_bundle_path: Path) -> Callable[..., int]:
    """Run the command on the test set with the encoder of the toy model; returns the exit code."""

    def run(*arguments: str) -> int:
        return main(
            ["evaluate", "pictures", "-o", "out", "--clip", str(toy_bundle_path), *arguments]
        )

    return run
