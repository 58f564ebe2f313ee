"""A hub on this computer, with tiny repositories in the layouts of the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_hub import Hub, serve

from loopanimate_core.fetch import find_recipe

hub_package = pytest.importorskip("huggingface_hub")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that may be reached; tests are offline otherwise."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOPANIMATE_MODELS", str(tmp_path / "models"))
    return tmp_path / "cache"


@pytest.fixture
def small_hub(cache: Path) -> Iterator[Hub]:
    """The recipe `lcm-lora`, with 300 kB of other bytes."""
    file = find_recipe("lcm-lora").files["lora"]
    content = bytes(range(256)) * 1200
    with serve(Hub({file.repository: {file.file: content}})) as hub:
        yield hub
