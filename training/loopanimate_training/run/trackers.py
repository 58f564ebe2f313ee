"""The log's numbers for TensorBoard, trackio and wandb. `log.jsonl` has them all; a tracker that fails never stops a run."""

from __future__ import annotations

import hashlib
import importlib
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from loopanimate_core.errors import LoopAnimateError

RETRY_S = 60.0  # each attempt of TensorBoard leaves a file
PROJECT = "loopanimate"

_log = logging.getLogger(__name__)


class TrackerLog:
    """Passes the rows of `log.jsonl` on; a failure is logged, and tried again a minute later."""

    name = ""

    def __init__(self) -> None:
        self._retry_at = 0.0

    def write(self, row: Mapping[str, Any]) -> None:
        """Write every number of a row; events have no loss and are skipped."""
        if {"loss", "validation_loss"} & row.keys() and time.monotonic() >= self._retry_at:
            numbers = {
                name: value
                for name, value in row.items()
                if name not in ("step", "time") and isinstance(value, int | float)
            }
            self._attempt(lambda: self._add(numbers, row["step"]))

    def close(self) -> None:
        """Write what is waiting."""
        raise NotImplementedError

    def _add(self, numbers: Mapping[str, float], step: int) -> None:
        raise NotImplementedError

    def _forget(self) -> None:
        """Give up the connection that failed; the next row opens another one."""

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # trackers pass on whatever ended their threads
            _log.warning(
                "%s misses rows from here on; log.jsonl has them all: %s", self.name, error
            )
            self._forget()
            self._retry_at = time.monotonic() + RETRY_S


class TensorBoardLog(TrackerLog):
    """Writes for TensorBoard, in the run's folder.

    Args:
        step: the step that the run starts or resumes at.
    """

    name = "TensorBoard"

    def __init__(self, run: Path, step: int) -> None:
        super().__init__()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise LoopAnimateError(
                "tensorboard is true, but TensorBoard is not installed: python -m pip install tensorboard"
            ) from error
        self._open = partial(SummaryWriter, str(run / "tensorboard"))
        self._writer: Any = None
        self._attempt(lambda: self._writer_from(step + 1))

    def close(self) -> None:
        if self._writer is not None:
            self._attempt(self._writer.close)

    def _add(self, numbers: Mapping[str, float], step: int) -> None:
        writer = self._writer_from(step)
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    def _writer_from(self, step: int) -> Any:
        """The writer; a new one hides what an earlier one wrote for this step and later ones."""
        if self._writer is None:
            self._writer = self._open(purge_step=step)
        return self._writer

    def _forget(self) -> None:
        self._writer = None


class ProjectLog(TrackerLog):
    """Writes to trackio or wandb, whose functions are the same, in the project `loopanimate`.

    A run has the name of its folder, and goes on under it when it resumes. Steps that a resumed run repeats are
    written again to trackio; wandb keeps the first.

    Args:
        settings: of the run, for the tracker's page.
    """

    def __init__(self, package: str, run: Path, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.name = package
        try:
            self._package = importlib.import_module(package)
        except ImportError as error:
            raise LoopAnimateError(
                f"tracker is {package}, which is not installed: python -m pip install {package}"
            ) from error
        options: dict[str, Any] = {"project": PROJECT, "name": run.name, "resume": "allow"}
        if package == "wandb":  # finds a run again by its id, trackio by its name
            digest = hashlib.sha256(str(run.resolve()).encode()).hexdigest()
            options |= {"id": digest[:16], "dir": str(run)}
        self._open = partial(self._package.init, config=dict(settings), **options)
        self._opened = False

    def close(self) -> None:
        if self._opened:
            self._attempt(self._package.finish)

    def _add(self, numbers: Mapping[str, float], step: int) -> None:
        if not self._opened:
            self._open()
            self._opened = True
        self._package.log(dict(numbers), step=step)

    def _forget(self) -> None:
        self._opened = False


def open_trackers(
    run: Path, step: int, tensorboard: bool, tracker: str | None, settings: Mapping[str, Any]
) -> list[TrackerLog]:
    """The trackers that a run asks for.

    Raises:
        LoopAnimateError: one of them is not installed.
    """
    found: list[TrackerLog] = [TensorBoardLog(run, step)] if tensorboard else []
    return found if tracker is None else [*found, ProjectLog(tracker, run, settings)]
