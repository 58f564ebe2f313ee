"""A small file that shows whether a run is alive and what it is doing, for people and watchdogs."""

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
from loopanimate_core.files import atomic_write, read_file
from loopanimate_core.parsing import Fields, parse_json

from ..storage.locks import is_running

FILE = "heartbeat.json"
EVERY_S = 5.0  # while the state stays the same
STALE_S = 600.0  # an older heartbeat belongs to a run that is gone
# The file always has this size, so that it can be overwritten in place when the disk is full.
_SIZE_BYTES = 512

STARTING, TRAINING, SAVING, WAITING = "starting", "training", "saving", "waiting for the disk"
VALIDATING = "drawing a sheet"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
ACTIVE = (STARTING, TRAINING, SAVING, WAITING, VALIDATING)


class Heartbeat:
    """Writes `heartbeat.json`: step, steps, state, time (Unix, in seconds), pid and host.

    Does nothing on all but the first process. Leaving the context with an exception writes `failed`.

    Raises:
        LoopAnimateError: another process on this machine is training in the folder, or the folder is not
            writable when the run starts. Later failures are ignored: a heartbeat that gets old is the alarm.
    """

    def __init__(self, run: Path, steps: int, active: bool) -> None:
        self._path, self._steps, self._active = run / FILE, steps, active
        self._step, self._state, self._time = 0, "", 0.0
        if active:
            try:
                run.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LoopAnimateError(
                    f"out is {run}; that folder cannot be created: {error.strerror or error}"
                ) from error
            _require_unused(run)
            self._replace(self._line(0, STARTING))

    def __enter__(self) -> Heartbeat:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is not None:
            self.beat(self._step, FAILED)

    def beat(self, step: int, state: str = TRAINING) -> None:
        """Write that the run is alive after `step` steps; at most every 5 seconds in the same state."""
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
        """Beat from a thread while the block does something long that has no steps."""
        done = threading.Event()

        def beat_until_done() -> None:
            while not done.wait(EVERY_S):
                self._time = 0.0  # write, although the state is the same
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
            "step": step,
            "steps": self._steps,
            "state": state,
            "time": round(time.time(), 1),
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        return json.dumps(content).ljust(_SIZE_BYTES - 1) + "\n"

    def _replace(self, line: str) -> None:
        with atomic_write(self._path) as partial:
            partial.write_text(line, encoding="utf-8")

    def _overwrite(self, line: str) -> None:
        """Write in place, within the disk block that the file already has."""
        try:
            with self._path.open("r+b", buffering=0) as file:
                file.write(line.encode())
        except OSError:
            return


def _require_unused(run: Path) -> None:
    """Refuse a folder where another process trains: the two would overwrite each other's files."""
    beat = read_heartbeat(run) or {}
    pid, age_s = beat.get("pid", os.getpid()), time.time() - beat.get("time", 0.0)
    if beat.get("state") not in ACTIVE or age_s >= STALE_S:
        return
    if beat.get("host") == socket.gethostname() and pid != os.getpid() and is_running(pid):
        raise LoopAnimateError(
            f"process {pid} is training in {run} ({beat['state']}, {age_s:.0f} s ago); end it, or choose another `out`"
        )


def read_heartbeat(run: Path) -> dict[str, Any] | None:
    """The last heartbeat in a run's folder; None when there is none."""
    try:
        content = read_file(run / FILE, "heartbeat", 1 << 20)
        beat = Fields(parse_json(content, "the heartbeat", finite=False), "the heartbeat")
        beat.whole("pid", 0, 2**31, 0)
        beat.number("time", 0, 1e12, 0.0)
        return dict(beat.values)
    except LoopAnimateError:
        return None
