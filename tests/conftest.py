"""Settings for every test; shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Tests never download models, and parallel workers use one core each. The libraries read both
# variables when they are first imported, so they are set before any test module is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def toy_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle in under a megabyte: the real classes with random weights, 64 × 64 pixels."""
    from toy_bundle import build_toy_bundle

    from loopanimate_core.bundle import write_bundle

    path = tmp_path_factory.mktemp("bundle") / "toy.safetensors"
    write_bundle(path, build_toy_bundle(), title="Toy")
    return path
