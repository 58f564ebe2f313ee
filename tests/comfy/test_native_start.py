"""ComfyUI starts with the extension in it."""

from __future__ import annotations

import re

from comfy_server import ComfyServer


def test_the_extension_is_imported(comfy: ComfyServer) -> None:
    """`check_import_is_light` measures the import; ComfyUI's own figure depends on how busy the machine is."""
    assert re.search(r"seconds: .*/custom_nodes/LoopAnimate\s*$", comfy.log(), re.M)
    assert (
        len([name for name in comfy.get("/object_info") if name.startswith("LoopAnimate_")]) >= 10
    )
