"""The extension, loaded as ComfyUI loads it but with `tests/fakes`, and a toy loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import extension
import pytest
import torch

Nodes = Mapping[str, Any]


@pytest.fixture(scope="session")
def pack() -> ModuleType:
    """The package at the repository's root."""
    return extension.load_pack()


@pytest.fixture(scope="session")
def node_list() -> list[Any]:
    """The node classes in menu order."""
    return extension.load_nodes()


@pytest.fixture
def folder_paths(tmp_path: Path) -> ModuleType:
    """ComfyUI's folders, new and empty, under `tmp_path`."""
    return extension.use_folders(tmp_path)


@pytest.fixture
def nodes(folder_paths: ModuleType, node_list: list[Any]) -> Nodes:
    """The node classes by name, `LoopCheck` for `LoopAnimate_LoopCheck`, with their folders."""
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
