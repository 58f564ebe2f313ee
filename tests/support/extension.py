"""Load the extension as ComfyUI does, by path and through its door, against `tests/fakes`."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PACK = "loopanimate_extension_under_test"


def load_pack() -> ModuleType:
    """The package at the repository's root, once per process."""
    if PACK in sys.modules:
        return sys.modules[PACK]
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py")
    assert spec and spec.loader
    module = sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_nodes() -> list[Any]:
    """The node classes, in menu order."""
    return asyncio.run(asyncio.run(load_pack().comfy_entrypoint()).get_node_list())


def use_folders(base: Path) -> ModuleType:
    """Point `folder_paths` at empty folders under `base`, and register the extension's own again."""
    load_nodes()
    import folder_paths

    folder_paths.use(base)
    importlib.import_module(f"{PACK}.nodes.folders").register_folders()
    return folder_paths
