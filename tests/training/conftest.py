"""Small real videos, and runs over them at toy size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from loopanimate_training.config import RunConfig, resolve

Overrides = dict[str, Any]


def moving_square(frames: int, speed: float, height: int = 36, width: int = 48) -> np.ndarray:
    """[frames, H, W, 3] uint8: a bright square that swings over a dark ground."""
    video = np.full((frames, height, width, 3), 40, np.uint8)
    for i in range(frames):
        left = round((width - 12) * (0.5 + 0.5 * float(np.sin(speed * i))))
        video[i, 12:24, left : left + 12] = (230, 200, 60)
    return video


def write_video(path: Path, frames: np.ndarray, fps: int = 24) -> Path:
    """An H.264 file with one key frame in twelve, so that seeking matters."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"g": "12", "crf": "12"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 110 frames with captions, one too short and one that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        write_video(folder / f"clip{number}.mp4", moving_square(110, 0.05 * (number + 1)))
        (folder / f"clip{number}.txt").write_text(f"a square swinging {number}\n")
    write_video(folder / "short.mp4", moving_square(20, 0.1))
    (folder / "page.mp4").write_text("<html>404</html>")
    return folder


@pytest.fixture
def make_run(toy_bundle_path: Path, videos: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """`make_run(stage, out=…, **{"section.name": value})`: a toy run of a stage over the videos."""

    def make(stage: int = 1, **settings: Any) -> RunConfig:
        defaults: Overrides = {
            "out": tmp_path / "run",
            "steps": 6,
            "log_every_steps": 1,
            "device": "cpu",
            "model.start": toy_bundle_path,
            "clip.height_px": 32,
            "clip.width_px": 32,
            "clip.starts_per_clip": 2,
            "clip.mask": "ones",
            "data.source": "videos",
            "data.path": videos,
            "data.cache": tmp_path / "cache",
            "batch.size": 2,
        }
        return resolve(
            stage, None, [f"{name}={value}" for name, value in {**defaults, **settings}.items()]
        )

    return make
