"""Unusual and invalid input on the command line: either one clear error, or a correct loop."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from loopanimate_core.cli import main
from loopanimate_core.video import read_video

Builder = Callable[[Path], None]


def sticker(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A disc on a plain background."""
    width, height = size
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    inside = (x**2 + y**2 < 0.3)[..., None]
    return Image.fromarray(np.where(inside, [220, 40, 30], [200, 220, 240]).astype(np.uint8))


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Workplace:
    """A folder with a picture, where commands run with the toy bundle."""

    folder: Path
    bundle: Path
    capture: pytest.CaptureFixture[str]

    @property
    def picture(self) -> Path:
        return self.folder / "picture.png"

    @property
    def loop(self) -> Path:
        return self.folder / "out" / "loop.webp"

    def animate(self, *arguments: str, picture: Path | None = None) -> Result:
        command = ["animate", str(picture or self.picture), "--bundle", str(self.bundle)]
        command += ["--detail", "off"]  # a random model draws noise, which moves nothing
        command += ["--frames", "15", "--steps", "2", "-o", str(self.loop), *arguments]
        code = main(command)
        captured = self.capture.readouterr()
        return Result(code, captured.out, captured.err)

    def assert_refused(self, result: Result, *words: str) -> None:
        """One plain sentence with `words` on stderr, exit code 2, and nothing written."""
        assert result.code == 2, result
        assert result.err.startswith("loopanimate: ")
        assert result.err.count("\n") == 1 and "Traceback" not in result.err
        for word in words:
            assert word in result.err
        assert list(self.loop.parent.iterdir()) == []

    def assert_made(self, result: Result, frames: int = 14) -> torch.Tensor:
        """Exit code 0, and a complete loop with this number of frames as the only new file."""
        assert result.code == 0, result
        assert list(self.loop.parent.iterdir()) == [self.loop]
        made, _ = read_video(self.loop)
        assert len(made) == frames and made.isfinite().all()
        return made


@pytest.fixture
def place(tmp_path: Path, toy_bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> Workplace:
    workplace = Workplace(tmp_path, toy_bundle_path, capsys)
    workplace.loop.parent.mkdir()
    sticker().save(workplace.picture)
    return workplace


# Pictures


def truncated(path: Path) -> None:
    sticker((200, 200)).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:300])


def text_file(path: Path) -> None:
    path.write_text("this is not a picture\n")


REFUSED_PICTURES: dict[str, tuple[Builder, str]] = {
    "truncated": (truncated, "damaged or cut off"),
    "one pixel": (lambda path: sticker((1, 1)).save(path, "PNG"), "1 x 1 pixels"),
    "a line": (lambda path: sticker((20000, 10)).save(path, "PNG"), "20000 x 10 pixels"),
    "a text file": (text_file, "not a picture"),
    "an empty file": (Path.touch, "picture"),
    "a folder": (Path.mkdir, "is a folder"),
    "missing": (lambda path: None, "no picture file"),
}


@pytest.mark.parametrize("kind", REFUSED_PICTURES)
def test_invalid_pictures_are_rejected(place: Workplace, kind: str) -> None:
    build, words = REFUSED_PICTURES[kind]
    path = place.folder / "bad.png"
    build(path)
    place.assert_refused(place.animate(picture=path), "bad.png", words)


def cmyk(path: Path) -> None:
    sticker().convert("CMYK").save(path, "JPEG")


def sixteen_bit(path: Path) -> None:
    grey = np.asarray(sticker().convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(path, "PNG")


def animated(path: Path) -> None:
    frames = [sticker().rotate(angle) for angle in (0, 40, 80)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=100)


def transparent(path: Path) -> None:
    cut_out = sticker()
    cut_out.putalpha(Image.fromarray(np.asarray(cut_out)[..., 2] < 100))
    cut_out.save(path, "PNG")


ODD_PICTURES: dict[str, Builder] = {
    "CMYK": cmyk,
    "16 bit": sixteen_bit,
    "animated": animated,
    "transparent": transparent,
    "grey": lambda path: sticker().convert("L").save(path, "PNG"),
    "palette": lambda path: sticker().convert("P").save(path, "PNG"),
    "wide": lambda path: sticker((300, 50)).save(path, "PNG"),
}


@pytest.mark.parametrize("kind", ODD_PICTURES)
def test_unusual_pictures_are_animated(place: Workplace, kind: str) -> None:
    path = place.folder / "odd.picture"
    ODD_PICTURES[kind](path)
    result = place.animate(picture=path)
    assert place.assert_made(result).shape == (14, 64, 64, 3)
    assert ("has 3 frames" in result.err) == (kind == "animated")


# Prompts and numbers


def test_an_empty_prompt(place: Workplace) -> None:
    place.assert_made(place.animate("--prompt", ""))


def test_a_prompt_of_400_tokens_is_cut_with_a_warning(place: Workplace) -> None:
    result = place.animate("--prompt", "a " * 400)
    place.assert_made(result)
    assert result.err.startswith("loopanimate: ") and "400 tokens" in result.err


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("0: bobbing, 14: swaying", "0 to 13"),
        ("0: bobbing, 3:", "no text at frame 3"),
        ("bobbing, 3: swaying", "must begin with one"),
    ],
)
def test_keys_of_a_prompt_that_are_wrong(place: Workplace, prompt: str, words: str) -> None:
    place.assert_refused(place.animate("--prompt", prompt), words)


def test_a_prompt_that_travels(place: Workplace) -> None:
    result = place.animate("--prompt", "0: bobbing, 7: swaying")
    frames, _fps = read_video(place.loop)
    assert result.code == 0 and len(frames) == 14


def test_a_file_that_is_not_a_lora(place: Workplace) -> None:
    place.assert_refused(place.animate("--lora", f"{place.bundle}:0.5"), "is not a LoRA")
    place.assert_refused(place.animate("--lora", f"{place.bundle}:99"), "between -10 and 10")
    place.assert_refused(place.animate("--lora", "nowhere.safetensors"), "nowhere.safetensors")


@pytest.mark.parametrize("frames", [-5, 0, 1, 2])
def test_too_few_frames(place: Workplace, frames: int) -> None:
    place.assert_refused(place.animate("--frames", str(frames)), "at least 3", f"got {frames}")


@pytest.mark.parametrize("frames", [3, 34, 36])
def test_frame_counts_the_model_was_not_trained_on(place: Workplace, frames: int) -> None:
    place.assert_made(place.animate("--frames", str(frames)), frames - 1)


@pytest.mark.parametrize("closing", ["tie", "shift", "off"])
def test_more_frames_than_the_model_supports(place: Workplace, closing: str) -> None:
    result = place.animate("--frames", "1000", "--closing", closing)
    place.assert_refused(result, "got 1000", "'windows'")


def test_a_thousand_frames_in_windows(place: Workplace) -> None:
    options = ["--frames", "1000", "--closing", "windows", "--steps", "1", "--guidance", "1"]
    loop = place.loop.with_suffix(".mp4")
    result = place.animate(*options, "--width", "16", "--height", "16", "-o", str(loop))
    assert result.code == 0, result
    assert len(read_video(loop)[0]) == 999


@pytest.mark.parametrize("size", [("65", "64"), ("64", "-8"), ("8", "64"), ("64", "99999")])
def test_impossible_sizes(place: Workplace, size: tuple[str, str]) -> None:
    result = place.animate("--width", size[0], "--height", size[1])
    place.assert_refused(result, "multiple of 8")


def test_sizes_that_are_odd_at_every_level(place: Workplace) -> None:
    """72 x 40 pixels are 9 x 5 latents, which halve to odd sizes at every level."""
    result = place.animate("--width", "72", "--height", "40")
    assert place.assert_made(result).shape == (14, 40, 72, 3)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--steps", "0", "between 1 and 1000"),
        ("--start", "0", "at most 1"),
        ("--seed", "-1", "got -1"),
        ("--chain", "0", "between 1 and 1000"),
        ("--fps", "nan", "1 to 120"),
        ("--fps", "0", "1 to 120"),
        ("--repeats", "0", "1 to 1000"),
        ("--quality", "0", "1 to 100"),
        ("--device", "abacus", "'abacus' is not available"),
        ("--mask", "missing.png", "missing.png"),
        ("--format", "gif", ".gif"),
    ],
)
def test_numbers_out_of_range(place: Workplace, option: str, value: str, words: str) -> None:
    place.assert_refused(place.animate(option, value), words)


def test_a_mask_of_another_size(place: Workplace) -> None:
    mask = place.folder / "mask.png"
    sticker((32, 32)).save(mask)
    place.assert_refused(place.animate("--mask", str(mask)), "32 x 32", "64 x 64")


# Bundles


def nan_weights(path: Path, good: Path) -> None:
    with safe_open(good, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["unet.conv_in.weight"][0, 0] = torch.nan
    save_file(tensors, path, metadata)


BAD_BUNDLES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "missing": (lambda path, good: None, "no file"),
    "a folder": (lambda path, good: path.mkdir(), "is a folder"),
    "empty": (lambda path, good: path.touch(), "empty"),
    "truncated": (lambda path, good: path.write_bytes(good.read_bytes()[:-1000]), "incomplete"),
    "cut in its header": (
        lambda path, good: path.write_bytes(good.read_bytes()[:900]),
        "incomplete",
    ),
    "pickle": (lambda path, good: path.write_bytes(pickle.dumps({"unet": 1})), "pickle"),
    "other tensors": (
        lambda path, good: save_file({"a": torch.ones(1)}, path),
        "not a LoopAnimate bundle",
    ),
    "NaN weights": (nan_weights, "NaN"),
}


@pytest.mark.parametrize("kind", BAD_BUNDLES)
def test_bad_bundles(place: Workplace, kind: str) -> None:
    build, words = BAD_BUNDLES[kind]
    path = place.folder / "bad.safetensors"
    build(path, place.bundle)
    place.assert_refused(place.animate("--bundle", str(path)), "bad.safetensors", words)


# The other commands


@pytest.mark.parametrize(
    "command",
    [
        ["mask", "broken.png", "-o", "out/mask.png"],
        ["mask", "picture.png", "-o", "out/mask.bmp"],
        ["mask", "picture.png", "-o", "out/mask.png", "--threshold", "2"],
        ["mask", "picture.png", "-o", "out/mask.png", "--method", "alpha"],
        ["mask", "picture.png", "-o", "out/mask.png", "--method", "onnx", "--model", "broken.png"],
        ["check", "broken.png"],
        ["check", "missing.mp4"],
        ["check", "picture.png"],
        ["info", "broken.png"],
        ["info", "missing.safetensors"],
        ["convert", "extract", "broken.png", "-o", "out/parts"],
        ["convert", "assemble", "--unet", "broken.png", "-o", "out/model.safetensors"],
        ["convert", "assemble", "--unet", "missing", "-o", "out/model.safetensors"],
    ],
    ids=" ".join,
)
def test_other_commands_print_one_sentence(
    place: Workplace, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    text_file(place.folder / "broken.png")
    code = main(command)
    captured = place.capture.readouterr()
    place.assert_refused(Result(code, captured.out, captured.err))


# Outputs


def test_an_existing_file_is_kept_unless_forced(place: Workplace) -> None:
    place.loop.write_text("precious")
    result = place.animate()
    assert result.code == 2 and "--force" in result.err
    assert place.loop.read_text() == "precious"
    place.assert_made(place.animate("--force"))


def test_an_unknown_ending(place: Workplace) -> None:
    place.assert_refused(place.animate("-o", str(place.loop.with_suffix(".doc"))), ".doc", ".mp4")


def test_a_missing_folder(place: Workplace) -> None:
    place.assert_refused(place.animate("-o", str(place.loop.parent / "no/loop.mp4")), "no folder")


def on_other_disk(place: Workplace, options: str, fill: bool) -> list[tuple[int, str, list[str]]]:
    """Animate with every kind of writer into a folder on a separate file system.

    Args:
        fill: fill the file system first.

    Returns:
        Exit code, message, and the files in the folder, for each output.
    """
    if shutil.which("unshare") is None:
        pytest.skip("mounting a small disk without privileges needs Linux's unshare")
    folder = place.loop.parent
    code = f"""
import contextlib, io, json, os
from loopanimate_core.cli import main
if {fill}:
    with contextlib.suppress(OSError), open({str(folder)!r} + "/filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
for name in ("loop.mp4", "loop.webp", "loop.apng", "frames"):
    command = ["animate", {str(place.picture)!r}, "--bundle", {str(place.bundle)!r}]
    command += ["--frames", "15", "--steps", "1", "-o", {str(folder)!r} + "/" + name]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        exit_code = main(command)
    print(json.dumps([exit_code, said.getvalue(), os.listdir({str(folder)!r})]))
"""
    mount = f"mount -t tmpfs -o {options} tmpfs {folder} || exit 77; exec {sys.executable} -c"
    result = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", f'{mount} "$0"', code],
        capture_output=True,
        text=True,
    )
    if result.returncode == 77 or "unshare" in result.stderr:
        pytest.skip(f"this system does not let tests mount a disk: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr
    return [tuple(json.loads(line)) for line in result.stdout.splitlines()]


def test_a_full_disk(place: Workplace) -> None:
    for exit_code, said, left in on_other_disk(place, "size=64k", fill=True):
        assert exit_code == 2
        assert said.startswith("loopanimate: cannot write") and said.count("\n") == 1
        assert left == ["filler"]


def test_a_read_only_folder(place: Workplace) -> None:
    for exit_code, said, left in on_other_disk(place, "ro", fill=False):
        assert exit_code == 2
        assert "read-only" in said and said.count("\n") == 1
        assert left == []


def test_ctrl_c_in_the_middle(place: Workplace) -> None:
    """SIGINT after sampling has started: one line, exit code 130, an empty folder."""
    run = """
import signal, sys
from loopanimate_core import cli, sampling
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit it ignored
step = sampling.StepState
def announce(*args):
    print("sampling", flush=True)
    return step(*args)
sampling.StepState = announce
sys.exit(cli.main())
"""
    command = [sys.executable, "-c", run, "animate", str(place.picture)]
    command += ["--bundle", str(place.bundle), "--steps", "1000", "-o", str(place.loop)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.stdout.readline() == "sampling\n", process.stderr.read()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted; no half-written file is left" in err and "Traceback" not in err
    assert list(place.loop.parent.iterdir()) == []
