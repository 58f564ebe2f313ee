"""Child processes that answer requests: one that dies or hangs costs its request, not the run.

A child is a Python module run as a program: it reads requests from standard input, a line of JSON each, and answers
each with a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

LIMIT = "LOOPANIMATE_CHILD_LIMIT_S"
GRACE_S = 5.0  # the parent ends a late child first, and knows why
PARENT_POLL_S = 0.5

Pool = TypeVar("Pool", bound="ChildPool")


@dataclass(frozen=True)
class Answer:
    """A child's line; empty if it died, or was ended because it ran out of time."""

    line: str
    timed_out: bool = False


class ChildPool:
    """Child processes of one module, started when first needed. Use as a context.

    `ask` may be called from several threads, as many at a time as there are children.

    Args:
        module: dotted name of the module that the children run.
        arguments: of its command line.
        environment: variables that the children have besides this process's.
    """

    def __init__(
        self,
        module: str,
        children: int,
        time_limit_s: float,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = [sys.executable, "-m", module, *arguments]
        self._environment = dict(environment or {})
        self._time_limit_s = time_limit_s
        self._idle: queue.Queue[subprocess.Popen[str] | None] = queue.Queue()
        self._children: set[subprocess.Popen[str]] = set()
        for _ in range(children):
            self._idle.put(None)

    def __enter__(self: Pool) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        # Busy children are killed too; the threads waiting for them get an empty answer.
        for child in list(self._children):
            child.kill()
            child.wait()

    def ask(self, request: Mapping[str, Any]) -> Answer:
        """A child's answer. One that died or hung is replaced for the next request."""
        child = self._idle.get()
        try:
            if child is None:
                child = self._start()
                self._children.add(child)
            answer = self._asked(child, request)
            if not answer.line:
                self._children.discard(child)
                _end(child)
                child = None
            return answer
        finally:
            self._idle.put(child)

    def _asked(self, child: subprocess.Popen[str], request: Mapping[str, Any]) -> Answer:
        assert child.stdin is not None and child.stdout is not None
        timed_out = threading.Event()

        def stop_waiting() -> None:
            timed_out.set()
            child.kill()

        timer = threading.Timer(self._time_limit_s, stop_waiting)
        timer.start()
        try:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except OSError:  # the child has just died
            line = ""
        finally:
            timer.cancel()
        return Answer(line if line.endswith("\n") else "", timed_out.is_set())

    def _start(self) -> subprocess.Popen[str]:
        # The child finds the package where this process found it. In a session of its own, Ctrl-C does not
        # reach it; the parent ends it.
        paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        paths[LIMIT] = str(self._time_limit_s + GRACE_S)
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            env={**os.environ, **self._environment, **paths},
            start_new_session=os.name == "posix",
        )


def requests() -> Iterator[dict[str, Any]]:
    """For a child: the requests, until the parent closes the pipe or ends in any way.

    The child has the time limit too: the kernel ends it when it is late, also while nobody waits for it.
    """
    limit_s = float(os.environ.get(LIMIT, 0))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    for line in sys.stdin:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, limit_s)
        yield json.loads(line)
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)


def _end(child: subprocess.Popen[str]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    child.kill()
    child.wait()
