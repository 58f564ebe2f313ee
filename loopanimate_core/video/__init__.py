"""Loops as files: written so that the seam stays closed, and read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .read import read_loop, read_metadata, read_video
    from .write import write_video

__all__ = ["read_loop", "read_metadata", "read_video", "write_video"]

__getattr__ = lazy_names(
    __name__,
    {
        "read_loop": "read",
        "read_metadata": "read",
        "read_video": "read",
        "write_video": "write",
    },
)
