"""LoopAnimate as a ComfyUI extension: this folder, placed in ComfyUI/custom_nodes.

Only the standard library is imported here, so that a missing dependency is reported by
`comfy_entrypoint` instead of hiding the whole extension.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes import LoopAnimateExtension

WEB_DIRECTORY = "./web"


def _load_core() -> ModuleType:
    """Make ``import loopanimate_core`` mean the copy in this folder, pip-installed or not.

    Raises:
        ImportError: another copy of LoopAnimate is already loaded from a different folder.
    """
    name = "loopanimate_core"
    folder = Path(__file__).resolve().parent / name
    if loaded := sys.modules.get(name):
        if Path(loaded.__file__ or "").resolve().parent != folder:
            raise ImportError(
                f"{name} is already loaded from {loaded.__file__}: keep one copy of LoopAnimate"
            )
        return loaded
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


async def comfy_entrypoint() -> LoopAnimateExtension:
    """ComfyUI's V3 entry point: load the core beside this file, then the nodes."""
    try:
        _load_core()
        from .nodes import LoopAnimateExtension
    except Exception:
        # ComfyUI prints the message of a failed import but not where it came from.
        logging.getLogger("loopanimate").exception("LoopAnimate could not be loaded")
        raise
    return LoopAnimateExtension()
