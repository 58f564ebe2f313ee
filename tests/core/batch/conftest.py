"""A stand-in for a ComfyUI server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_server import ComfyStandIn


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ComfyStandIn]:
    stand_in = ComfyStandIn(tmp_path / "server")
    yield stand_in
    if stand_in.alive:
        stand_in.kill()
