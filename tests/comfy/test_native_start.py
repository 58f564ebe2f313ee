"""ComfyUI starts with the extension in it."""

from __future__ import annotations

import re

from comfy_server import ComfyServer


def test_the_extension_is_imported(comfy: ComfyServer) -> None:
    """`check_import_is_light` says how fast; ComfyUI's own figure is of a machine that may be busy."""
    assert re.search(r"seconds: .*/custom_nodes/LoopAnimate\s*$", comfy.log(), re.M)
    assert (
        len([name for name in comfy.get("/object_info") if name.startswith("LoopAnimate_")]) >= 10
    )
