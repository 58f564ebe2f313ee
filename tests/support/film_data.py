"""Settings of data sets that tests write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loopanimate_training.config import ClipConfig, DataConfig

CLIP = ClipConfig(f=2, mask="ones")  # needs 7 frames


def data_of(path: Path, **changes: Any) -> DataConfig:
    """Videos at `path`, with their index beside it."""
    return DataConfig(
        **{"source": "videos", "path": path, "index": path.parent / "index", **changes}
    )
