"""A small file that says whether a run is alive and what it is doing, for people and watchdogs."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

from ..storage.locks import is_running

FILE = "heartbeat.json"
EVERY_S = 5.0  # while the state stays the same
STALE_S = 600.0  # an older one is nobody's
_SIZE_BYTES = (
    512  # always the same, so that it can be overwritten where a full disk has no room for another
)

STARTING, TRAINING, SAVING, WAITING = "starting", "training", "saving", "waiting for the disk"
DRAWING = "drawing a sheet"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"


class Heartbeat:
    """Writes `heartbeat.json`: step, steps, state, time (Unix, in seconds), pid and host.

    Inactive on all but the first process. Leaving the context with an exception writes `failed`.

    Raises:
        LoopAnimateError: another process of this machine is at work in the folder, or it cannot be written
            to when the run starts. Later troubles are ignored: a heartbeat that gets old is the alarm.
    """

    def __init__(self, run: Path, steps: int, active: bool) -> None:
        self._path, self._steps, self._active = run / FILE, steps, active
        self._step, self._state, self._time = 0, "", 0.0
        if active:
            try:
                run.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LoopAnimateError(
                    f"out is {run}, and that folder cannot be made: {error.strerror or error}"
                ) from error
            _require_free(run)
            self._replace(self._line(0, STARTING))

    def __enter__(self) -> Heartbeat:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is not None:
            self.beat(self._step, FAILED)

    def beat(self, step: int, state: str = TRAINING) -> None:
        """Say that the run is alive after `step` steps; rarely written while nothing else changes."""
        self._step = step
        now = time.monotonic()
        if not self._active or (state == self._state and now - self._time < EVERY_S):
            return
        self._state, self._time = state, now
        line = self._line(step, state)
        try:
            self._replace(line)
        except LoopAnimateError:
            self._overwrite(line)

    @contextmanager
    def during(self, state: str) -> Iterator[None]:
        """Beat on a thread of its own while something long is done that has no steps."""
        done = threading.Event()

        def beat_until_done() -> None:
            while not done.wait(EVERY_S):
                self._time = 0.0  # due, although nothing else has changed
                self.beat(self._step, state)

        self.beat(self._step, state)
        thread = threading.Thread(target=beat_until_done, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _line(self, step: int, state: str) -> str:
        content = {
            "step": step, "steps": self._steps, "state": state, "time": round(time.time(), 1), "pid": os.getpid(),
            "host": socket.gethostname(),
        }  # fmt: skip
        return json.dumps(content).ljust(_SIZE_BYTES - 1) + "\n"

    def _replace(self, line: str) -> None:
        with atomic_write(self._path) as partial:
            partial.write_text(line, encoding="utf-8")

    def _overwrite(self, line: str) -> None:
        """In place, within the block that the file has already."""
        try:
            with self._path.open("r+b", buffering=0) as file:
                file.write(line.encode())
        except OSError:
            return


def _require_free(run: Path) -> None:
    """Two processes that train in one folder would ruin each other's files."""
    beat = read_heartbeat(run) or {}
    pid, age_s = beat.get("pid", os.getpid()), time.time() - beat.get("time", 0.0)
    at_work = (
        beat.get("state") in (STARTING, TRAINING, SAVING, WAITING, DRAWING) and age_s < STALE_S
    )
    if (
        at_work
        and beat.get("host") == socket.gethostname()
        and pid != os.getpid()
        and is_running(pid)
    ):
        raise LoopAnimateError(
            f"process {pid} is training in {run} ({beat['state']}, {age_s:.0f} s ago); end it, or choose another `out`"
        )


def read_heartbeat(run: Path) -> dict[str, Any] | None:
    """The last heartbeat of a run's folder; None when there is none."""
    try:
        return json.loads((run / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
