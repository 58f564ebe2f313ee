"""A run's log: one JSON line per logged step in `log.jsonl`, and a progress bar."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write, read_file
from loopanimate_core.parsing import MalformedError, parse_json

from ..progress import refresh_s
from ..storage.jsonl import JsonlWriter
from .trackers import TrackerLog

FILE = "log.jsonl"
NUMBERS = frozenset(
    {
        *("loss", "mean_loss", "validation_loss", "lr", "grad_norm"),
        *("clips_per_s", "data_wait_s", "memory_gb", "time"),
    }
)
MAY_BE_NULL = frozenset({"loss", "mean_loss", "grad_norm"})  # not finite, or none yet
SMOOTHING = 0.98  # of the loss on the progress bar, per step


class RunLog:
    """Writes `log.jsonl` and the progress bar; does nothing on all but the first process.

    A row has either a `loss` or an `event`: a skipped step, for example.

    Args:
        step: the step that the run starts or resumes at; later rows are removed from the log.
        mean_loss: the smoothed loss at that step.
        active: whether this is the first process.
        trackers: what gets the rows as well; closed with the log.
    """

    def __init__(
        self,
        run: Path,
        steps: int,
        step: int,
        mean_loss: float | None,
        active: bool,
        trackers: Sequence[TrackerLog] = (),
    ) -> None:
        self.mean_loss = mean_loss
        self._trackers = trackers
        self._bar = tqdm(
            total=steps,
            initial=step,
            unit="step",
            disable=not active,
            dynamic_ncols=True,
            mininterval=refresh_s(),
        )
        self._rows = None
        if active:
            remove_rows_after(run / FILE, step)
            self._rows = JsonlWriter(run / FILE)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        for tracker in self._trackers:
            tracker.close()

    def advance(self, loss: float, clips_per_s: float) -> float | None:
        """Move the bar by one step; returns the smoothed loss, None before the first finite one."""
        if math.isfinite(loss):
            old = self.mean_loss
            self.mean_loss = loss if old is None else SMOOTHING * old + (1 - SMOOTHING) * loss
        shown = "" if self.mean_loss is None else f"loss {self.mean_loss:.4f}, "
        memory = f", {memory_gb():.1f} GB"
        self._bar.set_postfix_str(f"{shown}{clips_per_s:.1f} clips/s{memory}", refresh=False)
        self._bar.update()
        return self.mean_loss

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. While the disk is full, rows are kept and written later."""
        if "loss" in row:
            row = {**row, "memory_gb": round(memory_gb(), 2)}
        if self._rows is not None:
            self._rows.write(row)
        for tracker in self._trackers:
            tracker.write(row)

    def sync(self) -> None:
        """Make sure that all rows are on the disk.

        Raises:
            OSError: the disk is full or failing.
        """
        if self._rows is not None:
            self._rows.sync()

    def skip_step(self, step: int, scale: float, clips: Sequence[str]) -> None:
        """Print and log that a step (from 0) was skipped because its gradient was not finite."""
        self.message(f"step {step}: the gradient is not finite; the step is skipped")
        row = {"step": step + 1, "event": "gradient not finite, step skipped", "loss_scale": scale}
        self.write({**row, "clips": list(clips)})

    def run_optional(self, what: str, action: Callable[[], object]) -> None:
        """Do something that the run does not depend on; when it fails, print why and continue."""
        try:
            action()
        except (LoopAnimateError, OSError) as error:
            self.message(f"no {what}: {error}")
            return
        except torch.cuda.OutOfMemoryError as error:
            self.message(f"no {what}: {str(error).partition('. ')[0]}")
        else:
            return
        torch.cuda.empty_cache()  # outside `except`, where nothing refers to the large tensors any more

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        if self._rows is not None:
            self._bar.write(text, file=sys.stderr)


def memory_gb() -> float:
    """Peak memory in 10^9 bytes: of tensors on the GPU, or of the process where there is no GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def read_log(path: Path) -> list[dict[str, Any]]:
    """All complete rows of a log; a row that a crash cut off is skipped."""
    rows = []
    content = read_file(path, "log").decode(errors="replace") if path.is_file() else ""
    for line in content.splitlines():
        try:
            values = parse_json(line, "a row", finite=False)
        except MalformedError:
            continue
        if isinstance(values, dict):
            rows.append({name: value for name, value in values.items() if _fits(name, value)})
    return rows


def _fits(name: str, value: Any) -> bool:
    """Whether a field of a row has the type that it must have; other programs may have written it."""
    if name == "step":
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    if name not in NUMBERS:
        return True
    if value is None:
        return name in MAY_BE_NULL
    return type(value) in (int, float) and abs(value) < 1e300


def _step_of(row: Mapping[str, Any]) -> float:
    step = row.get("step")
    return step if isinstance(step, (int, float)) and not isinstance(step, bool) else math.inf


def remove_rows_after(path: Path, step: int) -> None:
    """Remove the rows of steps that a resumed run repeats, and a row that a crash cut off."""
    content = path.read_bytes() if path.is_file() else b""
    kept = [json.dumps(row) + "\n" for row in read_log(path) if _step_of(row) <= step]
    if len(kept) < len(content.splitlines()):
        with atomic_write(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
