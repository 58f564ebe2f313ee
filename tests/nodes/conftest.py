"""The extension, loaded as ComfyUI loads it but against `tests/fakes`, and toy loops to feed it."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent.parent
FAKES = ROOT / "tests/fakes"
PACK = "loopanimate_extension_under_test"

Nodes = Mapping[str, Any]


@pytest.fixture(scope="session")
def pack() -> ModuleType:
    """The package at the repository's root."""
    if str(FAKES) not in sys.path:
        sys.path.insert(0, str(FAKES))
    if PACK in sys.modules:
        return sys.modules[PACK]
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py")
    assert spec and spec.loader
    module = sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def node_list(pack: ModuleType) -> list[Any]:
    """The node classes in menu order, through the door ComfyUI uses."""
    return asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())


@pytest.fixture
def folder_paths(pack: ModuleType, tmp_path: Path) -> ModuleType:
    """ComfyUI's folders, new and empty, under `tmp_path`."""
    import folder_paths

    folder_paths.use(tmp_path)
    return folder_paths


@pytest.fixture
def nodes(folder_paths: ModuleType, node_list: list[Any]) -> Nodes:
    """The node classes by name, `LoopCheck` for `LoopAnimate_LoopCheck`, with their folders."""
    importlib.import_module(f"{PACK}.nodes.folders").register_folders()
    return {node.GET_SCHEMA().node_id.removeprefix("LoopAnimate_"): node for node in node_list}


@pytest.fixture(scope="session")
def loop() -> torch.Tensor:
    """A disc that goes round once on a grey field: `[16, 48, 64, 3]`, seamless."""
    frames = []
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    for index in range(16):
        angle = 2 * math.pi * index / 16
        distance = (x - 32 - 14 * math.cos(angle)).hypot(y - 24 - 12 * math.sin(angle))
        disc = (9 - distance).clamp(0, 1)[..., None]
        frames.append(0.3 + disc * torch.tensor([0.6, 0.3, -0.1]))
    return torch.stack(frames)
