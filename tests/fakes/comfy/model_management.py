"""A fake of ComfyUI's cancel button."""

from __future__ import annotations

from typing import Any


class InterruptProcessingException(Exception):
    pass


_interrupted = False


def interrupt_current_processing(value: bool = True) -> None:
    global _interrupted
    _interrupted = value


def throw_exception_if_processing_interrupted() -> None:
    global _interrupted
    if _interrupted:
        _interrupted = False
        raise InterruptProcessingException


def __getattr__(name: str) -> Any:
    """Lets a type checker accept what the native types, which no fake can run, use of the real module."""
    raise AttributeError(f"the fake of {__name__} has no {name}")
