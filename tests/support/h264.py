"""Real videos for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np


def write_video(path: Path, frames: np.ndarray, fps: int = 24) -> Path:
    """An H.264 file with a key frame every 12 frames, so that seeking is tested."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"g": "12", "crf": "12"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path
