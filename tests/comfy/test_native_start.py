"""ComfyUI starts with the extension in it."""

from __future__ import annotations

import re

from server import ComfyServer


def test_the_extension_is_imported_in_half_a_second(comfy: ComfyServer) -> None:
    found = re.search(r"([\d.]+) seconds: .*/custom_nodes/LoopAnimate\s*$", comfy.log(), re.M)
    assert found, comfy.log()[-2000:]
    assert float(found[1]) <= 0.5
