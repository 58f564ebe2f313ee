"""A fake of ComfyUI's progress bar."""

from __future__ import annotations

from collections.abc import Callable

hook: Callable[[int, int], None] | None = None
"""Called with (done, total) by every bar."""


class ProgressBar:
    def __init__(self, total: int, node_id: str | None = None) -> None:
        self.total = total

    def update_absolute(self, value: int, total: int | None = None) -> None:
        self.total = total or self.total
        if hook is not None:
            hook(min(value, self.total), self.total)
