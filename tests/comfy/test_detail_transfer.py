"""Detail Transfer on a real server: the basic template, and frames streamed into Save Loop."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_graphs import Graph, node
from comfy_server import PACK, ComfyServer, PromptError

from loopanimate_core.check import check_file
from loopanimate_core.picture.images import load_picture, save_picture
from loopanimate_core.video import read_video, write_video

FRAMES = 12
STILL_PX = (240, 320)
MEGABYTE = 2**20


def disc(height_px: int, width_px: int, angle: float) -> torch.Tensor:
    """A shaded disc on its way round a plain field, `[H, W, 3]`."""
    y, x = torch.meshgrid(torch.arange(height_px), torch.arange(width_px), indexing="ij")
    half = width_px / 2
    x = (x + 0.5) / half - 1 - 0.2 * math.cos(angle)
    y = (y + 0.5 - height_px / 2) / half - 0.2 * math.sin(angle)
    cover = ((0.3 - x.hypot(y)) * half).clamp(0, 1)[..., None]
    paint = torch.stack([0.6 + 0.8 * x, 0.4 + 0.8 * y, 0.2 + 0 * x], -1)
    return 0.7 + cover * (paint.clamp(0, 1) - 0.7)


@pytest.fixture(scope="module")
def given(comfy: ComfyServer) -> Graph:
    """The small frames "frames" and the large still "still"."""
    clip = torch.stack([disc(48, 64, 2 * math.pi * index / FRAMES) for index in range(FRAMES)])
    write_video(clip, comfy.base_dir / "input/disc.png", fps=8, format="apng")
    save_picture(disc(*STILL_PX, 0.0), comfy.base_dir / "input/still.png")
    return {
        "frames": node("LoadImage", image="disc.png"),
        "still": node("LoadImage", image="still.png"),
    }


def detail(**changes: Any) -> dict[str, Any]:
    settings = {
        "mode": "auto",
        "size": "original",
        "width": 1920,
        "height": 1080,
        "fps": 0.0,
        "frames_fps": 8.0,
        "residual": 0.0,
        "band": 0.12,
        "transparent": False,
        "deliver": "stream",
    }
    links = {"frames": ["frames", 0], "still": ["still", 0]}
    return node("LoopAnimate_DetailTransfer", **links, **settings | changes)


def streamed(given: Graph, format: str, **changes: Any) -> Graph:
    """The loop streamed into a file by node "save"; node "shown" saves what `images` holds."""
    save = node(
        "LoopAnimate_SaveLoop",
        images=["detail", 0],
        loop=["detail", 1],
        fps=["detail", 3],
        filename_prefix="detail",
        format=format,
        quality=-1,
        preset="as it is",
        repeats=1,
    )
    shown = node("SaveImage", images=["save", 0], filename_prefix="shown")
    return {**given, "detail": detail(**changes), "save": save, "shown": shown}


def file_of(comfy: ComfyServer, entry: dict[str, Any], save: str = "save") -> Path:
    (saved,) = entry["outputs"][save]["loopanimate_saved"]
    return comfy.base_dir / "output" / saved["subfolder"] / saved["filename"]


def test_basic_template_saves_the_pictures_own_pixels(comfy: ComfyServer) -> None:
    graph: Graph = json.loads((PACK / "workflows/api/loopanimate_basic_api.json").read_text())
    entry = comfy.run(graph)
    path = file_of(comfy, entry, "11")
    frames, fps = read_video(path)
    still = load_picture(PACK / "loopanimate_core/data/pictures/ghost.png").rgb
    assert frames.shape[1:] == still.shape and fps == 24
    assert (frames[0] - still).abs().mean() < 0.01
    assert check_file(path).passed
    (report,) = entry["outputs"]["10"]["loopanimate_check"]
    assert report["passed"] and report["frames"] == 34 * 3
    assert entry["outputs"]["12"]["images"]


def test_a_photograph_becomes_a_loop_of_wallpaper_size(comfy: ComfyServer) -> None:
    """The basic template with a photograph of a camera's size, an object at its edge, and few steps."""
    photo = torch.nn.functional.interpolate(
        disc(160, 240, 0.0).movedim(-1, 0)[None], (1600, 2400), mode="bilinear"
    )[0].movedim(0, -1)
    save_picture(photo.roll(500, 1), comfy.base_dir / "input/photo.jpg")
    graph: Graph = json.loads((PACK / "workflows/api/loopanimate_basic_api.json").read_text())
    graph["3"] = node("LoadImage", image="photo.jpg")
    del graph["11"]["inputs"]["picture_name"]
    graph["7"]["inputs"] |= {"frames": 5, "width": 96, "height": 96}
    graph["8"]["inputs"] |= {"steps": 1, "cfg": 1.0}
    graph["12"]["inputs"]["fps"] = 0.0
    graph["10"]["inputs"]["on_fail"] = "warn"
    graph["shown"] = node("SaveImage", images=["7", 3], filename_prefix="shown")
    entry = comfy.run(graph)
    (shown,) = entry["outputs"]["shown"]["images"]
    picture = load_picture(comfy.base_dir / "output" / shown["filename"]).rgb
    assert picture.shape == (1600, 1600, 3)
    plain = (picture - 0.7).abs().amax((0, 2)) < 0.05  # columns without the disc
    assert plain[-8:].all() and not plain[800:].all(), "the disc must not be cut"
    frames, _fps = read_video(file_of(comfy, entry, "11"))
    assert frames.shape[1:] == (1080, 1080, 3)


def test_stream_is_the_still_moved_and_closed(comfy: ComfyServer, given: Graph) -> None:
    entry = comfy.run(streamed(given, "ffv1", fps=16.0))
    frames, fps = read_video(file_of(comfy, entry))
    assert fps == 16 and frames.shape == (2 * FRAMES, *STILL_PX, 3)
    truth = torch.stack([disc(*STILL_PX, math.pi * index / FRAMES) for index in range(2 * FRAMES)])
    assert (frames[0] - truth[0]).abs().max() < 0.01
    assert (frames - truth).abs().mean() < 0.01
    steps = (frames - frames.roll(1, 0)).abs().mean((1, 2, 3))
    assert steps[0] < 1.5 * steps[1:].median()
    assert len(entry["outputs"]["shown"]["images"]) == 1


def test_another_frame_of_the_stream_costs_no_memory(comfy: ComfyServer, given: Graph) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak of another process is read from /proc")
    process = Path(f"/proc/{comfy.process.pid}")

    def peak_bytes(fps: float) -> int:
        graph = streamed(given, "mp4", size="custom", width=960, height=720, fps=fps)
        process.joinpath("clear_refs").write_text("5")  # forgets the peak
        comfy.run(graph)
        (line,) = [row for row in process.joinpath("status").open() if row.startswith("VmHWM")]
        return int(line.split()[1]) * 1024

    peak_bytes(8.0)  # fills caches
    growth = peak_bytes(64.0) - peak_bytes(8.5)
    frame_bytes = 960 * 720 * 3 * 4
    assert growth < 20 * frame_bytes, f"{growth / MEGABYTE:.0f} MB for {7 * FRAMES} more frames"


def test_errors_are_one_sentence(comfy: ComfyServer, given: Graph) -> None:
    """Load Image's mask of a picture without transparency is empty."""
    graph = streamed(given, "mp4", mask=["still", 1])
    with pytest.raises(
        PromptError, match=r"LoopAnimate_DetailTransfer: the mask is empty, so .*\)$"
    ):
        comfy.run(graph)
