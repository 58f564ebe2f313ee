"""One ComfyUI server for all tests of this folder; they are skipped if ComfyUI is not found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_graphs import give_picture
from comfy_server import ComfyServer, find_comfyui


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:  # one worker, so one server, under `--dist loadgroup`
            item.add_marker(pytest.mark.xdist_group("comfy"))


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The root folder of ComfyUI."""
    root = find_comfyui()
    if root is None:
        pytest.skip("no ComfyUI found; set COMFYUI_PATH to the folder that holds its main.py")
    return root


@pytest.fixture(scope="session")
def comfy(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A running server, shared by all tests: do not change anything that affects other tests."""
    base_dir = tmp_path_factory.mktemp("comfy")
    server = ComfyServer.start(comfyui, base_dir, extra_args=["--preview-method", "latent2rgb"])
    yield server
    server.stop()


@pytest.fixture(scope="session")
def server(comfy: ComfyServer, toy_bundle_path: Path) -> ComfyServer:
    """The shared server with a small bundle, toy.safetensors, and a picture, ghost.png."""
    give_picture(comfy)
    folder = comfy.base_dir / "models/loopanimate"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(toy_bundle_path, folder / "toy.safetensors")
    return comfy
