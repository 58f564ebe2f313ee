"""The pictures of a folder, in the same order on every machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.folder import BUNDLED, list_pictures, pick_picture


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def test_pictures_come_in_the_same_order_everywhere(tmp_path: Path) -> None:
    touch(tmp_path, "b10.png", "b2.PNG", "a.jpeg", "B2.webp", ".hidden.png", "notes.txt", "²3.png")
    (tmp_path / "folder.png").mkdir()
    names = [path.name for path in list_pictures(tmp_path)]
    assert names == ["a.jpeg", "b2.PNG", "B2.webp", "b10.png", "²3.png"]


def test_no_way_leads_out_of_the_folder(tmp_path: Path) -> None:
    touch(tmp_path / "top/inside", "a.png")
    touch(tmp_path / "secret", "s.png")
    top = tmp_path / "top"
    (top / "inside/link.png").symlink_to(tmp_path / "secret/s.png")
    (top / "way_out").symlink_to(tmp_path / "secret", target_is_directory=True)
    assert [path.name for path in list_pictures(top, "inside")] == ["a.png"]
    for subfolder in (
        "..",
        "../secret",
        "inside/../../secret",
        str(tmp_path / "secret"),
        "way_out",
    ):
        with pytest.raises(LoopAnimateError, match="is outside"):
            list_pictures(top, subfolder)
    with pytest.raises(LoopAnimateError, match="no folder 'gone'"):
        list_pictures(top, "gone")


def test_the_end_of_a_folder_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    pictures = list_pictures(tmp_path)
    assert pick_picture(pictures, 1, "input").name == "b.png"
    for index in (2, -1):
        with pytest.raises(LoopAnimateError, match=f"0 to 1, so there is no picture {index}"):
            pick_picture(pictures, index, "input")
    with pytest.raises(LoopAnimateError, match="has no pictures"):
        pick_picture([], 0, "input")


def test_the_sample_pictures_are_there() -> None:
    assert "ghost.png" in [path.name for path in list_pictures(BUNDLED)]
