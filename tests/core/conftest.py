"""A whole model with Stable Diffusion's topology at toy size, shared by the tests of this folder."""

from __future__ import annotations

import pytest
from toy_bundle import build_toy_bundle

from loopanimate_core.bundle import Bundle


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """A bundle with a KL autoencoder; read-only, because all tests share it."""
    return build_toy_bundle("kl", layers=2, image_px=32)
