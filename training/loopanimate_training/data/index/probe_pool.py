"""Probing clips in child processes: a file that crashes the decoder or keeps it busy forever costs one
clip, not the run.

Run as a program, this module is the child: it reads requests from standard input, a line of JSON each, and
answers each with a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from ..readers.rows import Blob, Row
from .probe import ProbeResult, probe, unusable

CRASHES = "crashes the decoder"
TOO_SLOW = "decoding hangs"
TIME_LIMIT_S = 600.0


class ProbePool:
    """Child processes that probe clips, started when first needed. Use as a context.

    `probe` may be called from several threads, as many at a time as there are children.
    """

    def __init__(self, children: int, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._idle: queue.Queue[subprocess.Popen[str] | None] = queue.Queue()
        self._children: set[subprocess.Popen[str]] = set()
        for _ in range(children):
            self._idle.put(None)

    def __enter__(self) -> ProbePool:
        return self

    def __exit__(self, *_: object) -> None:
        # Busy children are killed too; the threads waiting for them get an empty answer.
        for child in list(self._children):
            child.kill()
            child.wait()

    def probe(self, row: Row) -> ProbeResult:
        """`probe` in a child. If the child dies or takes too long, that is the reason the clip gets."""
        child = self._idle.get()
        try:
            if child is None:
                child = _start_child()
                self._children.add(child)
            answer, timed_out = self._ask(child, row)
            if not answer:
                self._children.discard(child)
                _end_child(child)
                child = None
                return unusable(TOO_SLOW if timed_out else CRASHES)
            return ProbeResult.from_json(answer)
        finally:
            self._idle.put(child)

    def _ask(self, child: subprocess.Popen[str], row: Row) -> tuple[str, bool]:
        """The child's answer (empty if it died), and whether it ran out of time."""
        assert child.stdin is not None and child.stdout is not None
        timed_out = threading.Event()

        def stop_waiting() -> None:
            timed_out.set()
            child.kill()

        timer = threading.Timer(self._time_limit_s, stop_waiting)
        timer.start()
        try:
            child.stdin.write(json.dumps(_to_request(row)) + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        except OSError:  # the child has just died
            answer = ""
        finally:
            timer.cancel()
        return answer if answer.endswith("\n") else "", timed_out.is_set()


def _to_request(row: Row) -> dict[str, Any]:
    def blob(value: Blob | None) -> list[Any] | None:
        return None if value is None else [os.fspath(value.path), value.offset, value.size]

    return {
        "media": blob(row.media),
        "masks": blob(row.masks),
        "start_s": row.start_s,
        "end_s": row.end_s,
    }


def _from_request(request: dict[str, Any]) -> Row:
    def blob(value: list[Any]) -> Blob:
        path, offset, size = value
        return Blob(Path(path), offset, size)

    return Row(
        id="",
        media=blob(request["media"]),
        masks=None if request["masks"] is None else blob(request["masks"]),
        start_s=request["start_s"],
        end_s=request["end_s"],
    )


def _start_child() -> subprocess.Popen[str]:
    # The child finds the package where this process found it. In a session of its own, Ctrl-C does not
    # reach it; the parent ends it.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="ascii",
        env=environment,
        start_new_session=os.name == "posix",
    )


def _end_child(child: subprocess.Popen[str]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    child.kill()
    child.wait()


def main() -> None:
    """The child: one answer per request, until the parent closes the pipe."""
    for line in sys.stdin:
        print(probe(_from_request(json.loads(line))).to_json(), flush=True)


if __name__ == "__main__":
    main()
