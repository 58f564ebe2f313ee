"""The log's numbers for TensorBoard, in the run's folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from loopanimate_core.errors import LoopAnimateError

RETRY_S = 60.0  # each attempt leaves a file

_log = logging.getLogger(__name__)


class TensorBoardLog:
    """Writes the rows of `log.jsonl` for TensorBoard; a failure is logged and never stops the run.

    Args:
        step: the step that the run starts or resumes at.
    """

    def __init__(self, run: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise LoopAnimateError(
                "tensorboard is true, but TensorBoard is not installed: python -m pip install tensorboard"
            ) from error
        self._open = partial(SummaryWriter, str(run / "tensorboard"))
        self._writer: Any = None
        self._retry_at = 0.0
        self._attempt(lambda: self._writer_from(step + 1))

    def write(self, row: Mapping[str, Any]) -> None:
        """Write every number of a row; events have no loss and are skipped."""
        if {"loss", "validation_loss"} & row.keys() and time.monotonic() >= self._retry_at:
            self._attempt(lambda: self._add(row))

    def close(self) -> None:
        if self._writer is not None:
            self._attempt(self._writer.close)

    def _add(self, row: Mapping[str, Any]) -> None:
        writer = self._writer_from(row["step"])
        for name, value in row.items():
            if name not in ("step", "time") and isinstance(value, int | float):
                writer.add_scalar(name, value, row["step"])

    def _writer_from(self, step: int) -> Any:
        """The writer; a new one hides what an earlier one wrote for this step and later ones."""
        if self._writer is None:
            self._writer = self._open(purge_step=step)
        return self._writer

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # SummaryWriter's thread passes on whatever ended it
            _log.warning("TensorBoard misses rows from here on; log.jsonl has them all: %s", error)
            self._writer, self._retry_at = None, time.monotonic() + RETRY_S
