"""Signals end a program whatever it was doing, and never interrupt its cleaning up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from attacking import usual_signals
from waiting import HANGS_S

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

PROGRAM = """
import os, signal, sys, time
from loopanimate_core.cli.run import run_command

def send():
    os.kill(os.getpid(), {number})
    time.sleep(0)  # the handler runs here

class Deleted:
    def __del__(self):
        send()

def after_fork():
    os.register_at_fork(after_in_parent=send)
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)

def deleted():
    Deleted()

def bare_except():
    try:
        send()
    except:
        pass

def work():
    {where}()
    print("dropped", flush=True)
    try:
        os.read(0, 1)  # waits: nothing is ever written there
    finally:
        for _ in range(5):
            send()
            time.sleep(0.15)
        print("cleaned up", flush=True)
    return 0

sys.exit(run_command("test", work))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("where", ["after_fork", "deleted", "bare_except"])
def test_a_signal_whose_exception_is_dropped_comes_again(where: str, number: int) -> None:
    """The callbacks after a fork, of `logging` for one, are where a signal was lost once in 20 programs."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(where=where, number=int(number))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        preexec_fn=usual_signals,
    )
    assert program.stdin and program.stdout and program.stderr
    try:
        program.wait(HANGS_S)
        said, errors = program.stdout.read(), program.stderr.read()
    finally:
        program.kill()
        program.communicate()
    assert (program.returncode, said) == (128 + number, "dropped\ncleaned up\n"), errors
    assert errors.startswith("test: interrupted") and errors.count("\n") == 1
