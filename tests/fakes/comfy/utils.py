"""A fake of ComfyUI's progress bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

hook: Callable[[int, int], None] | None = None
"""Called with (done, total) by every bar."""


class ProgressBar:
    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total = total

    def update_absolute(self, value: int, total: int | None = None) -> None:
        self.total = total or self.total
        if hook is not None:
            hook(min(value, self.total), self.total)


def __getattr__(name: str) -> Any:
    """Lets a type checker accept what the native types, which no fake can run, use of the real module."""
    raise AttributeError(f"the fake of {__name__} has no {name}")
