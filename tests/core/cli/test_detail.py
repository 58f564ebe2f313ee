"""Detail transfer on the command line: sizes, the picture's own pixels, transparency, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from moving_picture import disc, swaying

from loopanimate_core.cli import main
from loopanimate_core.picture.images import load_picture, save_picture
from loopanimate_core.video import read_video, write_video

pytestmark = pytest.mark.numeric


@pytest.fixture
def loop(folder: Path) -> Path:
    """The picture `still.png` of 200 pixels, and a loop of it in 64."""
    save_picture(disc(size_px=200), folder / "still.png")
    return write_video(swaying(12), folder / "loop.mkv", fps=8.0)


def test_any_loop_is_redrawn_in_the_pixels_of_its_picture(loop: Path, folder: Path) -> None:
    assert main(["detail", "loop.mkv", "still.png", "-o", "big.mkv"]) == 0
    frames, fps = read_video(folder / "big.mkv")
    assert frames.shape == (12, 200, 200, 3) and fps == 8.0
    assert torch.equal(frames[0], load_picture(folder / "still.png").rgb)
    true = swaying(12, size_px=200)
    assert float((frames - true).square().mean()) < 0.1 * float((true - true[0]).square().mean())


def test_sizes_and_speeds(loop: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--size", "96x64", "--fps", "16", "-o", "small.mkv"]
    assert main(["detail", "loop.mkv", "still.png", *options]) == 0
    frames, fps = read_video(folder / "small.mkv")
    assert frames.shape == (24, 64, 96, 3) and fps == 16.0
    out = capsys.readouterr().out
    assert "24 frames of 96 x 64, 1.5 s at 16 fps" in out and "the model drew 64 x 64" in out


def test_the_object_alone(loop: Path, folder: Path) -> None:
    assert main(["detail", "loop.mkv", "still.png", "--transparent"]) == 0
    frames, _ = read_video(folder / "still_loop.webp", alpha=True)
    assert frames.shape[-1] == 4
    assert float(frames[..., 3].amin((1, 2)).max()) == 0.0
    assert float(frames[..., 3].amax((1, 2)).min()) > 0.99


def test_a_repeated_file_is_one_loop(loop: Path, folder: Path) -> None:
    write_video(swaying(12), folder / "three.mkv", fps=8.0, repeats=3)
    assert main(["detail", "three.mkv", "still.png", "--size", "model", "-o", "once.mkv"]) == 0
    assert len(read_video(folder / "once.mkv")[0]) == 12


def test_animate_writes_the_size_of_the_picture(animate, folder: Path) -> None:
    save_picture(disc(size_px=200), folder / "cat.png")
    assert animate("--detail", "auto", "-o", "loop.mkv") == 0
    frames, fps = read_video(folder / "loop.mkv")
    assert frames.shape == (3 * 14, 200, 200, 3) and fps == 24.0
    assert torch.equal(frames[0], load_picture(folder / "cat.png").rgb)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "9x9"], "16 to 8192"),
        (["--size", "huge"], "'huge'"),
        (["--fps", "500"], "1 to 120"),
        (["--residual", "nan"], "between 0 and 1"),
        (["--band", "2"], "between 0 and 1"),
        (["--transparent", "-o", "loop.mp4"], "mp4 cannot store transparency"),
        (["--transparent", "--detail", "elastic"], "'elastic'"),
        (["--plate", "small.png"], "20 x 20"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    animate, folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    save_picture(disc(size_px=20), folder / "small.png")
    before = set(folder.iterdir())
    assert animate("--detail", "auto", *options) == 2
    assert words in capsys.readouterr().err
    assert set(folder.iterdir()) == before
