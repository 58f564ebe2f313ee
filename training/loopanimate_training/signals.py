"""Stopping between two steps instead of anywhere."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from accelerate import Accelerator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying; a second one of the same kind acts as usual."""
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def remember(number: int, _: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, remember)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def agreed_signal(accelerator: Accelerator, caught: list[int]) -> int | None:
    """The signal that any process has caught: all must stop at the same step."""
    number = caught[0] if caught else 0
    if accelerator.num_processes > 1:
        everyones = accelerator.gather(torch.tensor([number], device=accelerator.device))
        number = int(everyones.max())  # type: ignore[union-attr]
    return number or None
