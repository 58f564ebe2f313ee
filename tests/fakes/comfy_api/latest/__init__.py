"""The V3 node API, as far as the nodes use it."""

from abc import ABC, abstractmethod

from . import io

__all__ = ["ComfyExtension", "io"]


class ComfyExtension(ABC):
    @abstractmethod
    async def get_node_list(self) -> list[type[io.ComfyNode]]: ...
