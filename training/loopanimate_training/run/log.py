"""What a run writes down: one JSON line per logged step (the source of truth) and a progress bar."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

from ..progress import refresh_s
from ..storage.jsonl import Journal

FILE = "log.jsonl"
SMOOTHING = 0.98  # of the loss on the progress bar, per step
BOARD_RETRY_S = 60.0  # each try leaves a file

_log = logging.getLogger(__name__)


class RunLog:
    """Writes `log.jsonl` and the bar; inactive on all but the first process.

    A row has a `loss`, or is the account of an `event`: a step left out, a wait for the disk.
    """

    def __init__(
        self,
        run: Path,
        steps: int,
        start: int,
        loss: float | None,
        active: bool,
        board: bool = False,
    ) -> None:
        self.loss = loss
        self._board = Board(run, start) if active and board else None
        self._bar = tqdm(
            total=steps, initial=start, unit="step", disable=not active, dynamic_ncols=True,
            mininterval=refresh_s(),
        )  # fmt: skip
        self._journal = None
        if active:
            forget_after(run / FILE, start)
            self._journal = Journal(run / FILE)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._board is not None:
            self._board.close()

    def step(self, loss: float, clips_per_s: float) -> float | None:
        """Advance the bar by one step; returns the smoothed loss, None before the first finite one."""
        if math.isfinite(loss):
            old = self.loss
            self.loss = loss if old is None else SMOOTHING * old + (1 - SMOOTHING) * loss
        shown = "" if self.loss is None else f"loss {self.loss:.4f}, "
        memory = f", {memory_gb():.1f} GB"
        self._bar.set_postfix_str(f"{shown}{clips_per_s:.1f} clips/s{memory}", refresh=False)
        self._bar.update()
        return self.loss

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one row; one that the full disk does not take follows later."""
        if "loss" in record:
            record = {**record, "memory_gb": round(memory_gb(), 2)}
        if self._journal is not None:
            self._journal.write(record)
        if self._board is not None:
            self._board.write(record)

    def sync(self) -> None:
        """Make sure that all rows are on the disk.

        Raises:
            OSError: it has no room for them yet.
        """
        if self._journal is not None:
            self._journal.sync()

    def leave_out(self, step: int, scale: float, clips: Sequence[str]) -> None:
        """Say and write that a step was left out because its gradient was not finite."""
        self.say(f"step {step}: the gradient is not finite; the step is left out")
        row = {"step": step + 1, "event": "gradient not finite, step left out", "loss_scale": scale}
        self.write({**row, "clips": list(clips)})

    def attempt(self, what: str, action: Callable[[], object]) -> None:
        """Do what a run can do without: a failure is said, no more."""
        try:
            action()
        except (LoopAnimateError, OSError) as error:
            self.say(f"no {what}: {error}")
            return
        except torch.cuda.OutOfMemoryError as error:
            self.say(f"no {what}: {str(error).partition('. ')[0]}")
        else:
            return
        torch.cuda.empty_cache()  # out here, where nothing holds on to what did not fit

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if self._journal is not None:
            self._bar.write(message, file=sys.stderr)


class Board:
    """The same numbers for TensorBoard, in the run's folder.

    It is a view of the log and never ends a run: what the disk does not take is missing there, and said.
    """

    def __init__(self, run: Path, start: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise LoopAnimateError(
                "tensorboard is true and TensorBoard is not installed: python -m pip install tensorboard"
            ) from error
        self._open = partial(SummaryWriter, str(run / "tensorboard"))
        self._writer: Any = None
        self._retry_at = 0.0
        self._attempt(lambda: self._writer_from(start + 1))

    def write(self, record: Mapping[str, Any]) -> None:
        """Every number of a row; rows without a loss are events and have none."""
        if "loss" in record and time.monotonic() >= self._retry_at:
            self._attempt(lambda: self._add(record))

    def close(self) -> None:
        if self._writer is not None:
            self._attempt(self._writer.close)

    def _add(self, record: Mapping[str, Any]) -> None:
        writer = self._writer_from(record["step"])
        for name, value in record.items():
            if name not in ("step", "time") and isinstance(value, int | float):
                writer.add_scalar(name, value, record["step"])

    def _writer_from(self, step: int) -> Any:
        """The writer; a new one hides what an earlier one wrote of this step and those after it."""
        if self._writer is None:
            self._writer = self._open(purge_step=step)
        return self._writer

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # its thread passes on whatever it died of
            _log.warning("TensorBoard misses rows from here on, log.jsonl has them: %s", error)
            self._writer, self._retry_at = None, time.monotonic() + BOARD_RETRY_S


def memory_gb() -> float:
    """10^9 bytes held at most: by tensors on the GPU, or by the process where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a log; a line cut off by a crash is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def forget_after(path: Path, step: int) -> None:
    """Drop the rows of steps that a resumed run will take again, and a row cut off by a crash."""
    content = path.read_bytes() if path.is_file() else b""
    kept = [json.dumps(record) + "\n" for record in read_log(path) if record["step"] <= step]
    if len(kept) < len(content.splitlines()):
        with atomic_write(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
