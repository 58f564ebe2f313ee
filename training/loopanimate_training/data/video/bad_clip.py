"""The error that a run survives."""

from __future__ import annotations

from loopanimate_core.errors import LoopAnimateError


class BadClip(LoopAnimateError):
    """One clip cannot be read; the run goes on without it."""
