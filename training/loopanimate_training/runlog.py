"""What a run writes down: one JSON line per logged step (the source of truth) and a progress bar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from loopanimate_core.files import atomic_write

FILE = "log.jsonl"
SMOOTHING = 0.98  # of the loss on the progress bar, per step


class RunLog:
    """Writes `log.jsonl` and the bar; inactive on all but the first process."""

    def __init__(self, run: Path, steps: int, start: int, loss: float | None, active: bool) -> None:
        self.loss = loss
        self._bar = tqdm(
            total=steps, initial=start, unit="step", disable=not active, dynamic_ncols=True
        )
        self._file = None
        if active:
            path = run / FILE
            forget_after(path, start)
            self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._file is not None:
            self._file.close()

    def step(self, loss: float, clips_per_s: float) -> float:
        """Advance the bar by one step; returns the smoothed loss."""
        self.loss = loss if self.loss is None else SMOOTHING * self.loss + (1 - SMOOTHING) * loss
        self._bar.set_postfix_str(f"loss {self.loss:.4f}, {clips_per_s:.1f} clips/s", refresh=False)
        self._bar.update()
        return self.loss

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line."""
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        if self._file is not None:
            self._bar.write(message)


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
    """Drop the lines of steps that a resumed run will take again."""
    records = read_log(path)
    kept = [record for record in records if record["step"] <= step]
    if path.is_file():
        with atomic_write(path) as partial:
            partial.write_text(
                "".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8"
            )
