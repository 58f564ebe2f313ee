"""Loops come into `--out` once each, whole, under names of our own, and nothing else does."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from batch_server import ComfyStandIn, mp4_of
from PIL import Image

from loopanimate_core.batch.bodies import CHECKS, local_suffix, require_format
from loopanimate_core.cli import main
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.video import write_video
from loopanimate_core.video.formats import FORMATS

GRAPH: dict[str, Any] = {
    "3": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
    "5": {"class_type": "LoopAnimate_LoopSampler", "inputs": {"seed": 7, "image": ["3", 0]}},
    "9": {
        "class_type": "LoopAnimate_SaveLoop",
        "inputs": {"images": ["5", 0], "filename_prefix": "la/loop", "format": "mp4"},
    },
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with `pictures` (three) and a workflow."""
    (tmp_path / "pictures").mkdir()
    for name in "abc":
        Image.new("RGB", (20, 20), "red").save(tmp_path / "pictures" / f"{name}.png")
    (tmp_path / "flow.json").write_text(json.dumps(GRAPH))
    return tmp_path


def batch(place: Path, url: str, *more: str) -> int:
    workflow = str(place / "flow.json")
    return main(
        [
            "batch",
            str(place / "pictures"),
            "--workflow",
            workflow,
            "--server",
            url,
            "--quiet",
            *more,
        ]
    )


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_two_savers_with_one_file_name_keep_both_loops(place: Path, server: ComfyStandIn) -> None:
    usual = server._execute

    def twice(graph: dict[str, Any]) -> dict[str, Any]:
        entry = usual(graph)
        for node, folder in (("9", "first"), ("10", "second")):
            target = server.folder / "out" / folder
            target.mkdir(parents=True, exist_ok=True)
            (target / "x.mp4").write_bytes(mp4_of(folder))
            saved = {"filename": "x.mp4", "subfolder": folder, "type": "output"}
            entry["outputs"][node] = {"images": [saved]}
        return entry

    server._execute = twice  # type: ignore[method-assign]
    assert batch(place, server.url, "--out", str(place / "out")) == 0
    found = [name for name in files(place / "out") if name.startswith("a/")]
    assert found == ["a/x.mp4", "a/x_2.mp4"]
    assert {(place / "out" / name).read_bytes() for name in found} == {
        mp4_of("first"),
        mp4_of("second"),
    }


def test_loops_that_a_run_left_on_the_server_are_fetched(place: Path, server: ComfyStandIn) -> None:
    assert batch(place, server.url) == 0
    for out in ("first", "second"):
        assert batch(place, server.url, "--out", str(place / out)) == 0
        assert files(place / out) == ["a.mp4", "b.mp4", "c.mp4"]
    (place / "second" / "b.mp4").unlink()
    assert batch(place, server.url, "--out", str(place / "second")) == 0
    assert files(place / "second") == ["a.mp4", "b.mp4", "c.mp4"]
    assert len(server.posted) == 3  # nothing was made twice


def test_a_loop_that_the_server_no_longer_has_is_made_again(
    place: Path, server: ComfyStandIn
) -> None:
    assert batch(place, server.url) == 0
    for path in (server.folder / "out").rglob("*_b_*.mp4"):
        path.unlink()
    assert batch(place, server.url, "--out", str(place / "out")) == 0
    assert files(place / "out") == ["a.mp4", "b.mp4", "c.mp4"]
    assert len(server.posted) == 4


def test_a_state_file_cannot_lead_out_of_the_folder(place: Path, server: ComfyStandIn) -> None:
    out, evil = place / "out", place / "evil.mp4"
    assert batch(place, server.url, "--out", str(out)) == 0
    with sqlite3.connect(place / "pictures.loopanimate.sqlite") as db:
        db.execute("UPDATE pictures SET status = 'posted', results = ?", (json.dumps([str(evil)]),))
    assert batch(place, server.url, "--out", str(out)) == 0
    assert not evil.exists()
    assert set(files(place)) >= {"out/a.mp4", "out/b.mp4", "out/c.mp4"}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("results", "{"),
        ("saved", '[["../x", ""]]'),
        ("expected", "7"),
        ("status", "finished"),
        ("attempts", "many"),
        ("reason", b"\xff\xfe"),
    ],
)
def test_a_damaged_state_is_one_sentence(
    place: Path,
    server: ComfyStandIn,
    capsys: pytest.CaptureFixture[str],
    column: str,
    value: object,
) -> None:
    assert batch(place, server.url) == 0
    with sqlite3.connect(place / "pictures.loopanimate.sqlite") as db:
        db.execute(f"UPDATE pictures SET {column} = ?", (value,))
    assert batch(place, server.url, "--out", str(place / "out")) == 2
    error = capsys.readouterr().err
    assert "is damaged" in error and error.count("\n") == 1


def test_pages_in_the_middle_of_a_state_that_are_overwritten(
    place: Path, server: ComfyStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch(place, server.url) == 0
    state = place / "pictures.loopanimate.sqlite"
    content = bytearray(state.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    state.write_bytes(content)
    assert batch(place, server.url) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_state_of_an_earlier_version_is_read(place: Path, server: ComfyStandIn) -> None:
    assert batch(place, server.url) == 0
    with sqlite3.connect(place / "pictures.loopanimate.sqlite") as db:
        for column in ("saved", "folder"):
            db.execute(f"ALTER TABLE pictures DROP COLUMN {column}")
    assert batch(place, server.url) == 0
    assert len(server.posted) == 3


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_a_name_that_is_not_utf8_gets_its_loop(place: Path, server: ComfyStandIn) -> None:
    try:
        os.rename(place / "pictures" / "a.png", os.fsencode(place / "pictures") + b"/a\xff.png")
    except OSError:
        pytest.skip("the file system has no such names")
    assert batch(place, server.url, "--out", str(place / "out")) == 0
    assert files(place / "out") == ["a_.mp4", "b.mp4", "c.mp4"]


def test_a_password_is_sent_and_never_shown(
    place: Path, server: ComfyStandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    url = server.url.replace("http://", "http://user:hunter2@")
    assert batch(place, url, "--out", str(place / "out")) == 0
    server.kill()
    (place / "out" / "a.mp4").unlink()
    assert batch(place, url, "--out", str(place / "out"), "--wait", "0") == 2
    assert batch(place, "ftp://user:hunter2@host", "--out", str(place / "out")) == 2
    shown = capfd.readouterr()
    assert "hunter2" not in shown.out + shown.err
    assert b"hunter2" not in (place / "pictures.loopanimate.sqlite").read_bytes()


@pytest.mark.parametrize("name", ["x.sh", "x.desktop", "x", "x.mp4.exe", "x.html", "x.svg"])
def test_a_server_does_not_choose_the_suffix(name: str) -> None:
    with pytest.raises(LoopAnimateError, match="not downloaded"):
        local_suffix(name)


@pytest.mark.parametrize("name", [row.name for row in FORMATS.values() if row.suffixes[0]])
def test_loops_of_every_format_are_complete_and_their_halves_are_not(
    tmp_path: Path, name: str
) -> None:
    import torch

    path = tmp_path / f"loop{FORMATS[name].suffixes[0]}"
    write_video(torch.rand(5, 32, 32, 3), path, fps=8, format=name)
    suffix = local_suffix(path.name)
    assert suffix in CHECKS
    require_format(path, suffix, path.name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(LoopAnimateError, match="not a complete"):
        require_format(path, suffix, path.name)
