"""The limits of a worker, and pictures of clips."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from curated_scenes import disc_mask, scene
from PIL import Image

from loopanimate_training.config import CurateConfig
from loopanimate_training.curate.thumbnail import draw
from loopanimate_training.curate.worker import WorkerPool
from loopanimate_training.data.readers.rows import Blob, Row


@pytest.mark.skipif(sys.platform != "linux", reason="the limit exists on Linux only")
def test_the_memory_limit_holds() -> None:
    code = """
import numpy as np
from loopanimate_training.curate.worker import limit_memory
limit_memory(1024)
np.ones(1 << 26, np.uint8)
try:
    np.ones(1 << 31, np.uint8)
except MemoryError:
    print("refused")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "refused\n"


def test_a_picture_shows_both_frames_and_the_object() -> None:
    masks = np.stack([disc_mask(0), disc_mask(18)])
    with Image.open(io.BytesIO(draw(scene(19)[[0, 18]], masks))) as picture:
        assert picture.format == "JPEG" and picture.height == 120
        pixels = np.asarray(picture.convert("L"), np.float32)
    assert pixels.shape[1] == 2 * round(192 * 120 / 108) + 4
    assert pixels[60, 107] > 1.5 * pixels[5:20, 5:200].mean()  # dark outside the object


def test_workers_draw_pictures_and_nothing_of_what_is_no_clip(
    clips: Path, curation: Callable[..., CurateConfig]
) -> None:
    with WorkerPool(curation(clips), 1) as pool:
        assert pool.picture(Row("a", Blob(clips / "kept.mp4"))).startswith(b"\xff\xd8")
        assert pool.picture(Row("a", Blob(clips / "broken.mp4"))) == b""
