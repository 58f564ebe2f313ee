"""Pictures start no program and keep their colours; names and captions of any kind lose one clip at most."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from film_data import data_of
from PIL import EpsImagePlugin, Image, ImageCms

from loopanimate_core.batch.pictures import list_pictures, upload_of
from loopanimate_core.bundle import write_bundle
from loopanimate_core.check import check_file
from loopanimate_core.cli import main
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import load_picture, to_uint8
from loopanimate_core.video import write_video
from loopanimate_training.cli import main as train
from loopanimate_training.data.index.probe import probe
from loopanimate_training.data.readers.detect import open_reader
from loopanimate_training.data.readers.rows import Blob, Row

ROOT = Path(__file__).resolve().parents[2]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n%%EOF\n"


# ------------------------------------------------------------------------------------ finding 22
def _probed(path: Path) -> None:
    folder = path.with_suffix("")
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(EPS)
    assert probe(Row("x", Blob(folder))).reason


def _in_a_bundle(path: Path) -> None:
    from toy_bundle import build_toy_bundle

    write_bundle(path.with_suffix(".safetensors"), build_toy_bundle(), thumbnail=path)


USES: dict[str, Callable[[Path], object]] = {
    "animate": load_picture,
    "check": check_file,
    "check a folder": lambda path: check_file(path.parent),
    "batch": lambda path: upload_of(list_pictures(path.parent)[0], on_white=True),
    "thumbnail": _in_a_bundle,
    "training": _probed,
}


@pytest.mark.skipif(os.name != "posix", reason="the program is a shell script")
@pytest.mark.parametrize("use", USES)
def test_no_picture_starts_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    programs, started, files = (tmp_path / name for name in ("bin", "started", "files"))
    programs.mkdir()
    files.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {started}\necho 10.0\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path = files / "x.png"
    path.write_bytes(EPS)
    with suppress(
        OSError
    ):  # without our formats Pillow does start it, else this would prove nothing
        Image.open(path).load()
    assert started.exists()
    started.unlink()
    with suppress(
        LoopAnimateError, OSError
    ):  # `thumbnail` is for programs, which see Pillow's error
        USES[use](path)
    assert not started.exists()


def test_pictures_are_opened_in_one_place() -> None:
    """`open_picture` names the formats."""
    found = [
        source.relative_to(ROOT).as_posix()
        for folder in ("loopanimate_core", "training", "nodes")
        for source in (ROOT / folder).rglob("*.py")
        if "Image.open(" in source.read_text(encoding="utf-8")
    ]
    assert found == ["loopanimate_core/picture/opening.py"]


# ------------------------------------------------------------------------------------ findings G
def other_primaries() -> bytes:
    """The profile of a space whose red is sRGB's green, and the other way round: a stronger Display P3."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {}
    for index in range(struct.unpack_from(">I", profile, 128)[0]):
        at = 132 + 12 * index
        tags[bytes(profile[at : at + 4])] = at
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("transparent", [False, True])
def test_the_profile_of_a_palette_is_applied(tmp_path: Path, transparent: bool) -> None:
    palette = Image.fromarray(np.repeat(np.arange(32, dtype=np.uint8)[None], 24, 0))
    palette = palette.convert("P")
    palette.putpalette([value for index in range(32) for value in (8 * index, 40, 200)])
    options: dict[str, Any] = {"transparency": 0} if transparent else {}
    palette.save(tmp_path / "p.png", icc_profile=other_primaries(), **options)
    plain = palette.convert("RGB")
    plain.save(tmp_path / "rgb.png", icc_profile=other_primaries())
    found, expected = (load_picture(tmp_path / name) for name in ("p.png", "rgb.png"))
    assert (to_uint8(found.rgb).int() - to_uint8(expected.rgb).int()).abs().max() <= 2
    assert (found.alpha is not None) == transparent
    stored = torch.from_numpy(np.asarray(plain).copy())
    assert (to_uint8(found.rgb).int() - stored.int()).abs().max() > 40


def test_the_transparent_level_of_deep_grey_is_applied(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 32 * 24).reshape(24, 32).astype(np.uint16)
    grey[:10] = 1234
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    data, chunk = file.getvalue(), b"tRNS" + struct.pack(">H", 1234)
    chunk = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "x.png").write_bytes(data[:33] + chunk + data[33:])
    alpha = load_picture(tmp_path / "x.png").alpha
    assert alpha is not None and alpha[:10].max() == 0 and alpha[10:].min() == 1


@pytest.mark.parametrize("kind", ["text", "json", "table"])
def test_a_huge_caption_costs_its_clip_at_most(tmp_path: Path, kind: str) -> None:
    """A caption of 50 MB took 24 s and all of it was kept; the network reads 77 tokens."""
    films, huge = tmp_path / "films", "word " * 10**6
    films.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (films / name).touch()
    (films / "b.txt").write_text("usual")
    if kind == "text":
        (films / "a.txt").write_text(huge)
    elif kind == "json":
        (films / "a.json").write_text(f'{{"caption": "{huge}"}}')
    else:
        (films / "metadata.csv").write_text(f"path,caption\na.mp4,{huge}\nb.mp4,usual\n")
    rows = sorted(open_reader(data_of(films)).rows(), key=lambda row: str(row.media.path))
    assert len(rows) == 2
    assert rows[0].reason or 300 < len(rows[0].caption) <= 10_000
    assert rows[1].caption == "usual" and not rows[1].reason


# ------------------------------------------------------------------------------------ findings F
@pytest.mark.skipif(os.name != "posix", reason="names that are not UTF-8")
def test_names_that_are_not_utf8(
    tmp_path: Path,
    toy_bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The picture, the model and the results have such names, and are read again."""
    monkeypatch.chdir(tmp_path)
    names = [os.fsdecode(name) for name in (b"p\xff.png", b"m\xfe.safetensors", b"s\xff.png")]
    picture, model, sheet = map(Path, names)
    try:
        Image.new("RGB", (64, 64), "red").save(picture)
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    model.write_bytes(toy_bundle_path.read_bytes())
    options = [
        "--bundle",
        str(toy_bundle_path),
        "--frames",
        "15",
        "--steps",
        "1",
        "--sheet",
        str(sheet),
    ]
    loop = Path(os.fsdecode(b"p\xff_loop.mp4"))
    commands = [
        (["animate", str(picture), *options], 0),
        (["check", str(loop)], 1),
        (["animate", str(picture), "--bundle", str(model)], 2),  # one that safetensors cannot open
        (["info", str(model)], 0),
        (["mask", str(picture)], 0),
    ]
    for command, code in commands:
        ended, said = main(command), capsys.readouterr()
        assert ended in (code, 0), said.err
        assert code != 2 or "is not UTF-8; rename it" in said.err
        (said.out + said.err).encode("utf-8", "backslashreplace")
    assert loop.is_file() and sheet.is_file()


def test_extract_into_a_file_is_refused_before_the_model_is_read(
    tmp_path: Path,
    toy_bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("loopanimate_core.bundle.read_bundle", lambda *_, **__: pytest.fail("read"))
    target = tmp_path / "file"
    target.write_text("precious")
    command = ["convert", "extract", str(toy_bundle_path), "--to", "pia", "-o", str(target)]
    for options in ([], ["--force"]):
        assert main([*command, *options]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(target) in error
        assert target.read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_links_that_lead_nowhere_lose_one_clip_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(2):
        frames = torch.rand(8, 64, 64, 3, generator=torch.Generator().manual_seed(number))
        write_video(frames, folder / f"{number}.mp4", fps=8, repeats=1)
        (folder / f"{number}.txt").write_text(f"film {number}")
    for name in ("loop.mp4", "loop.txt", "loop.masks"):
        (folder / name).symlink_to(folder / name)
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (folder / "itself").symlink_to(folder)
    with pytest.raises(SystemExit, match="0"):
        train(["inspect", str(folder), "--set", f"data.index={tmp_path / 'index'}"])
    assert "4 clips" in capsys.readouterr().out
