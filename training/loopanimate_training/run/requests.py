"""Requests to save or stop, on which all processes of a run agree.

A request is a signal (SIGTERM, Ctrl-C) that any process has caught, or a file named `save` or `save_quit`
in the run's folder. All processes get the same answer at the same step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from accelerate import Accelerator

from ..signals import QUIT_FILE, SAVE_FILE, Request


class Requests:
    """Collects the requests of all processes.

    Args:
        caught: numbers of the signals that this process has caught, as `caught_signals` collects them.
    """

    def __init__(self, accelerator: Accelerator, run: Path, caught: Sequence[int]) -> None:
        self._accelerator, self._run, self._caught = accelerator, run, caught
        self.is_main = accelerator.is_main_process

    def poll(self, unsaved: bool = False) -> Request:
        """What has been asked for so far. All processes must call it; they get the same answer.

        Args:
            unsaved: this process could not write a checkpoint in the background.
        """
        files = [self.is_main and os.path.exists(self._run / n) for n in (SAVE_FILE, QUIT_FILE)]
        mine = [*files, self._caught[0] if self._caught else 0, unsaved]
        save, leave, number, missing = self.max_of(mine)
        return Request(bool(save), bool(leave), number, bool(missing))

    def clear(self, request: Request) -> None:
        """Remove the files of a request that has been carried out."""
        for name, asked in ((SAVE_FILE, request.save), (QUIT_FILE, request.quit)):
            if asked and self.is_main:
                with suppress(OSError):  # already gone, or the disk is unreachable
                    (self._run / name).unlink()

    def max_of(self, values: Sequence[int]) -> list[int]:
        """The largest of each value over all processes; all must call it."""
        if self._accelerator.num_processes == 1:
            return [int(value) for value in values]
        mine = torch.tensor([[int(v) for v in values]], device=self._accelerator.device)
        gathered = self._accelerator.gather(mine)
        assert isinstance(gathered, torch.Tensor)
        return gathered.amax(0).tolist()

    def sleep(self, seconds: float) -> None:
        """Wait, but stop waiting when a signal arrives."""
        until = time.monotonic() + seconds
        while not self._caught and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
