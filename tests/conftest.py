"""Settings for every test; shared fixtures."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Tests never download models, and parallel workers use one core each. The libraries read both
# variables when they are first imported, so they are set before any test module is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest.register_assert_rewrite("closeness", "runs")

# The same examples on every machine, and no limit on the clock: a busy machine is slow.
hypothesis.settings.register_profile(
    "everywhere",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("everywhere")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same numbers, alone and in any order."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread, for equality bit for bit: threads share out sums in their own way."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def toy_bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle in under a megabyte: the real classes with random weights, 64 × 64 pixels."""
    from toy_bundle import build_toy_bundle

    from loopanimate_core.bundle import write_bundle

    path = tmp_path_factory.mktemp("bundle") / "toy.safetensors"
    write_bundle(path, build_toy_bundle(), title="Toy")
    return path
