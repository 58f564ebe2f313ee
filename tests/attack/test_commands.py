"""Options and names: refused before any work in one sentence, and no result is ever lost or overwritten."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from attacking import Counters, control_characters, files_below
from PIL import Image
from waiting import HANGS_S

from loopanimate_core.cli import main
from loopanimate_core.cli.outputs import free_path, require_writable
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import release_claims
from loopanimate_core.parsing import plain_text
from loopanimate_core.sampling import noise_generator

BAD_OPTIONS: tuple[tuple[str, ...], ...] = (
    ("--quality", "0"),
    ("--quality", "101"),
    ("--fps", "nan"),
    ("--fps", "inf"),
    ("--repeats", "0"),
    ("--repeats", "1000000"),
    ("--guidance", "nan"),
    ("--steps", "0"),
    ("--sheet", "x.bmp"),
    ("--sheet", "loop.webp", "-o", "loop.webp"),
    ("--sheet", "./loop.webp", "-o", "loop.webp", "--force"),
    ("-o", "folder.mp4", "--force"),
    ("-o", "/dev/null", "--format", "mp4", "--force"),
    ("-o", "pipe.mp4", "--force"),
    ("-o", "a" * 300 + ".mp4"),
    ("-o", "no/such/folder/x.mp4"),
    ("--chain", "999999999999"),
    ("--chain", "0"),
    ("--seed", "-1"),
    ("--seed", str(2**64)),
    ("--seed", str(2**64 - 1), "--chain", "2"),
    ("--width", "0"),
    ("--height", "0"),
    ("--width", "12"),
    ("--prompt", "\udcff"),
    ("--prompt", "x" * 100_000),
    ("--bundle", "/dev/zero"),
    ("--bundle", "pipe.mp4"),
    ("--bundle", "pic.png"),
    ("--mask", "/dev/zero"),
    ("--plate", "pipe.mp4"),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a picture, a folder and a pipe whose names end like videos."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32), "red").save("pic.png")
    Path("folder.mp4").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe.mp4")
    return tmp_path


def test_options_are_refused_before_a_picture_is_drawn(
    place: Path,
    toy_bundle_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "loopanimate_core.pipeline.sample_loop", lambda *_, **__: pytest.fail("sampled")
    )
    counters = Counters("options")
    before = files_below(place)
    for options in BAD_OPTIONS:
        with counters.case(" ".join(options)[:60]) as fail:
            bundle = [] if "--bundle" in options else ["--bundle", str(toy_bundle_path)]
            code = main(["animate", "pic.png", *bundle, "--frames", "15", *options])
            said = capsys.readouterr()
            if code != 2 or said.err.count("\n") != 1 or len(said.err) > 2100:
                fail(f"exit code {code}, says {said.err[:200]!r}")
            if control_characters(said.err + said.out):
                fail("shows control characters")
            if files_below(place) != before:
                counters.leftovers += 1
                fail(f"left {files_below(place) - before}")
    counters.require_zeros()


@pytest.mark.parametrize("command", [["check"], ["mask"], ["info"], ["detail", "pic.png"]])
@pytest.mark.parametrize("name", ["pipe.mp4", "/dev/zero", "folder.mp4", "no\x1b[31m", "x" * 300])
def test_things_that_are_not_files(
    place: Path, capsys: pytest.CaptureFixture[str], command: list[str], name: str
) -> None:
    assert main([*command, name]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not control_characters(error)


def test_two_processes_never_get_one_name(place: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from loopanimate_core.cli.outputs import free_path\n"
        "from loopanimate_core.files import release_claims\n"
        "print(free_path(Path('g_loop.mp4')), flush=True)\n"
        "sys.stdin.read()\n"
        "release_claims()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    others = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(3)
    ]
    names = [other.stdout.readline().strip() for other in others if other.stdout]
    try:
        own = str(free_path(Path("g_loop.mp4")))
        assert len({*names, own}) == 4
        with pytest.raises(LoopAnimateError, match="another process is writing"):
            require_writable(Path(names[0]), force=True)
    finally:
        release_claims()
        for other in others:
            other.communicate(timeout=HANGS_S)
    assert free_path(Path("g_loop.mp4")) == Path("g_loop.mp4")  # claims end with their processes
    release_claims()
    assert not [path for path in place.iterdir() if path.name.startswith(".partial-")]


def test_a_long_name_gets_a_shorter_result(place: Path) -> None:
    name = "é" * 125  # 250 bytes, with its ending 259
    assert len(os.fsencode(free_path(Path(f"{name}_loop.mp4")).name)) < 255
    release_claims()


def test_every_seed_has_noise_of_its_own() -> None:
    import torch

    seeds = (0, 1, 7, 2**32 - 1, 2**32, 2**32 + 7, 2**33, 2**62, 2**63, 2**64 - 1)
    noises = [torch.randn(8, generator=noise_generator(seed)) for seed in seeds]
    for index, noise in enumerate(noises):
        assert not any(torch.equal(noise, other) for other in noises[index + 1 :])
    usual = torch.randn(8, generator=torch.Generator().manual_seed(7))
    assert torch.equal(noises[2], usual)  # small seeds are those of other programs


def test_text_is_made_safe_to_show() -> None:
    for text in ("\x1b[31mred", "a\x9bb", "a\nb", "a\u202eb", "\ud800", "\x07", "x" * 10_000):
        shown = plain_text(text)
        assert not control_characters(shown) and "\n" not in shown and len(shown) <= 300
        shown.encode("utf-8")
    assert plain_text("plain – ü 猫") == "plain – ü 猫"
