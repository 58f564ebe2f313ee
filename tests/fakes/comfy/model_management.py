"""A fake of ComfyUI's cancel button."""

from __future__ import annotations


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
