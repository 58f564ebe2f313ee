"""Reading loops back: every format, its colours, timing and metadata, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy_frames import ALL_FORMATS, FRAMES, HEIGHT, TOLERANCE, WIDTH, error_of, make_frames, place

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.video import read, read_metadata, read_video, write_video
from loopanimate_core.video.formats import FORMATS

WITH_ALPHA = [name for name in ALL_FORMATS if FORMATS[name].alpha_pixels]


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_round_trip(tmp_path: Path, name: str) -> None:
    frames = make_frames()
    path = write_video(frames, place(tmp_path, name), fps=25, format=name, repeats=1)
    found, fps = read_video(path)
    assert found.shape == frames.shape
    assert found.dtype == torch.float32
    assert fps == 25
    assert error_of(found, frames) < TOLERANCE[name]
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", WITH_ALPHA)
def test_transparency_round_trip(tmp_path: Path, name: str) -> None:
    alpha = (torch.arange(WIDTH) > WIDTH // 2).float().expand(FRAMES, HEIGHT, WIDTH)[..., None]
    frames = torch.cat([make_frames(), alpha], -1)
    found, _ = read_video(
        write_video(frames, place(tmp_path, name), fps=25, format=name), alpha=True
    )
    assert found.shape == frames.shape
    assert error_of(found[..., 3:], alpha) < 1.0
    opaque = found[:, :, WIDTH // 2 + 4 :, :3]
    assert error_of(opaque, frames[:, :, WIDTH // 2 + 4 :, :3]) < 1.5 * TOLERANCE[name]


def test_opaque_file_read_with_alpha_is_ones(tmp_path: Path) -> None:
    for name in ("mp4", "webm", "gif"):
        found, _ = read_video(
            write_video(make_frames(3), place(tmp_path, name), fps=10), alpha=True
        )
        assert found.shape[-1] == 4
        assert (found[..., 3] == 1).all()


@pytest.mark.parametrize("name", ["mp4", "webm", "webm-av1", "prores"])
def test_colours_are_unbiased(tmp_path: Path, name: str) -> None:
    """Writing and reading use the same matrix (bt709) and range: flat patches differ by rounding only."""
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9], [0.5, 0.5, 0.5]])
    frames = colours.repeat_interleave(32, 0).expand(4, 64, 128, 3)
    found, _ = read_video(
        write_video(frames, place(tmp_path, name), fps=24, format=name, quality=100)
    )
    centres = found[:4, 16:48, 16::32].mean((0, 1))
    assert (centres - colours).abs().max() * 255 < 1.6


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_one_frame_and_odd_sizes(tmp_path: Path, name: str) -> None:
    found, _ = read_video(
        write_video(make_frames(1, 65, 67), place(tmp_path, name), fps=10, repeats=1, format=name)
    )
    assert found.shape[0] == 1


@pytest.mark.parametrize("name", ["webp", "apng", "gif"])
def test_merged_equal_frames_are_repeated(tmp_path: Path, name: str) -> None:
    frames = make_frames().repeat_interleave(torch.tensor([1, 3] * 6), 0)
    found, fps = read_video(write_video(frames, place(tmp_path, name), fps=25, format=name))
    assert (len(found), fps) == (24, 25)


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_metadata_round_trip(tmp_path: Path, name: str) -> None:
    """Long, multi-line, non-ASCII strings with every character that ffmetadata escapes."""
    tags = {
        "workflow": '{"a": "ü 猫 =;#\\ \\n"}\n[STREAM]\n' + "x" * 200_000,
        "prompt": "a cat = #1",
    }
    path = write_video(make_frames(3), place(tmp_path, name), fps=12.5, format=name, metadata=tags)
    assert read_metadata(path) == tags | {"loop_frames": "3", "loop_fps": "12.5"}


def test_foreign_folder_is_read_in_order_of_name(tmp_path: Path) -> None:
    for index, name in enumerate(["b.png", "a.png", "c.PNG"]):
        Image.fromarray(np.full((4, 5, 3), 50 * index, np.uint8)).save(tmp_path / name)
    found, fps = read_video(tmp_path)
    assert (found[:, 0, 0, 0] * 255).round().tolist() == [50, 0, 100]
    assert fps == read.FALLBACK_FPS
    Image.new("RGB", (9, 9)).save(tmp_path / "d.png")
    with pytest.raises(LoopAnimateError, match="another size"):
        read_video(tmp_path)


@pytest.mark.parametrize("name", [name for name in ALL_FORMATS if name != "png"])
@pytest.mark.parametrize("kept", [0.0, 0.3])
def test_damaged_files_raise(tmp_path: Path, name: str, kept: float) -> None:
    noise = torch.rand(6, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    path = write_video(noise, place(tmp_path, name), fps=25, format=name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(LoopAnimateError, match=str(path)):
        read_video(path)


def test_missing_files_and_other_formats_raise(tmp_path: Path) -> None:
    for reader in (read_video, read_metadata):
        with pytest.raises(LoopAnimateError, match="there is no file"):
            reader(tmp_path / "none.mp4")
        with pytest.raises(LoopAnimateError, match=r"has no \.png files"):
            reader(tmp_path)
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(LoopAnimateError, match=r"cannot read .*text\.mp4: "):
        read_video(text)
