"""A folder of drawn clips, each for one reason, and a way to curate it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from curated_scenes import scene
from h264 import write_video

from loopanimate_training.cli import main
from loopanimate_training.config import CurateConfig, resolve_curation

FRAMES = 30
SETTINGS = {"measure": {"f": 4, "windows": 1}}  # 19 frames
OPTIONS = ("--set", "measure.f=4", "--set", "measure.windows=1", "--workers", "1")
OPTIONS += ("--set", "limits.shortest_side_px=32")


def halved(frame: np.ndarray) -> np.ndarray:
    """A frame at half its size."""
    return cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of 30 frames named after the reason that they should get."""
    folder = tmp_path_factory.mktemp("curated") / "clips"
    folder.mkdir()
    still = np.stack([scene(1)[0]] * FRAMES)
    drawn = {
        "kept": scene(FRAMES, speed_px=2.0),
        "kept_panning": scene(FRAMES, speed_px=2.0, pan_px=1.0, seed=5),
        "twin": np.stack([halved(frame) for frame in scene(FRAMES, speed_px=2.0)]),
        "too_short": scene(10),
        "cuts": np.concatenate([scene(15, seed=7), scene(15, seed=8) // 3]),
        "static": still,
        "gone": scene(FRAMES, speed_px=2.0, gone_from=24, seed=3),
        "nothing": scene(FRAMES, speed_px=2.0, seed=4),
    }
    for name, frames in drawn.items():
        write_video(folder / f"{name}.mp4", frames)
        (folder / f"{name}.txt").write_text("a ball swinging" if name != "nothing" else "sunset")
    (folder / "broken.mp4").write_text("<html>404</html>")
    (folder / "broken.txt").write_text("a ball")
    return folder


@pytest.fixture(scope="session")
def curated(clips: Path) -> Path:
    """The table of the drawn clips, written by the command beside their folder."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    table = clips.parent / "salient.parquet"
    with pytest.raises(SystemExit) as ended:
        main(["curate", str(clips), "-o", str(table), *OPTIONS])
    assert ended.value.code == 0
    return table


@pytest.fixture
def curation() -> Callable[..., CurateConfig]:
    """`curation(path, **{"section.name": value})`: settings over a folder."""

    def make(path: Path, **changes: Any) -> CurateConfig:
        defaults = {**SETTINGS, "data": {"source": "videos", "path": path}}
        settings = {"limits.shortest_side_px": 32, **changes}
        return resolve_curation(defaults, None, [f"{k}={v}" for k, v in settings.items()])

    return make
