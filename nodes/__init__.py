"""The ComfyUI nodes: the only code that imports ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .loop_check import LoopCheck

NODES: list[type[io.ComfyNode]] = [
    LoopCheck,
]
"""Every node, in menu order."""


class LoopAnimateExtension(ComfyExtension):
    """What ComfyUI asks for the list of nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
