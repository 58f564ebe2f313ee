"""Signals at any moment leave nothing half-written, and what SIGKILL leaves is swept by the next run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from random import Random

import pytest
from attacking import MINUTES, Counters, files_below, seeds
from waiting import HANGS_S, wait_until

from loopanimate_core.exit_codes import ExitCode

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

# Writes a video that never ends, as a command does, and beside it a folder of pictures.
ENDLESS = """
import sys
from pathlib import Path
from loopanimate_core.cli.run import run_command
from loopanimate_core.cli.outputs import free_path
from loopanimate_core.files import atomic_write, partial_file, partial_folder
from loopanimate_core.video import ffmpeg

def work():
    output = free_path(Path("loop.mp4"))
    with atomic_write(output) as path, partial_folder(Path(".")) as folder, partial_file(Path("."), ".txt"):
        (folder / "frame.png").write_bytes(b"x")
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x64", "-i", "pipe:0", "-c:v", "mpeg4"]
        def chunks():
            while True:
                yield bytes(64 * 64 * 3)
                print("writing", flush=True)
        ffmpeg.feed([*source, "-y", ffmpeg.file_url(path)], chunks(), "cannot write")
    return 0

sys.exit(run_command("test", work))
"""
SHORT = ENDLESS.replace("while True:", "for _ in range(5):")


def start(folder: Path, script: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )


def children_of(process: int) -> list[int]:
    return [
        int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGHUP, ExitCode.HUNG_UP),
        (signal.SIGINT, ExitCode.INTERRUPTED),
    ],
)
def test_a_signal_ends_like_ctrl_c(tmp_path: Path, number: int, code: int) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("this process ignores the signal, and its children inherit that")
    process = start(tmp_path, ENDLESS)
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(number)
    process.send_signal(number)  # a launcher may pass it on a second time
    _, error = process.communicate(timeout=HANGS_S)
    assert process.returncode == code, error
    assert b"interrupted" in error and b"Traceback" not in error
    assert files_below(tmp_path) == set()


def test_what_sigkill_leaves_is_swept_by_the_next_run(tmp_path: Path) -> None:
    process = start(tmp_path, ENDLESS)
    assert process.stdout is not None and process.stdout.readline()
    children = children_of(process.pid) if sys.platform.startswith("linux") else []
    process.kill()
    process.communicate(timeout=HANGS_S)
    assert any(path.name.startswith(".partial-") for path in tmp_path.iterdir())
    for child in children:
        gone = partial(lambda path: not path.exists(), Path(f"/proc/{child}"))
        wait_until("ffmpeg ends with its parent", gone)
    assert start(tmp_path, SHORT).wait(HANGS_S) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["loop.mp4"]


def test_partial_files_of_running_processes_are_not_swept(tmp_path: Path) -> None:
    first = start(tmp_path, ENDLESS)
    assert first.stdout is not None and first.stdout.readline()
    before = {path.name for path in tmp_path.iterdir()}
    assert start(tmp_path, SHORT).wait(HANGS_S) == 0
    after = {path.name for path in tmp_path.iterdir()}
    # The name that the first process works on is not given away either.
    assert after - before == {"loop_2.mp4"} and before <= after
    first.terminate()
    first.communicate(timeout=HANGS_S)


@pytest.mark.skipif(
    MINUTES not in os.environ, reason="its moments are never the same; `make attack`"
)
def test_signals_at_random_moments_leave_nothing_after_the_next_run(tmp_path: Path) -> None:
    counters = Counters("signals")
    for seed in seeds(6):
        random = Random(seed)
        number = random.choice((signal.SIGTERM, signal.SIGHUP, signal.SIGKILL))
        process = start(tmp_path, ENDLESS)
        with counters.case(f"{number.name} {seed}") as fail:
            time.sleep(random.uniform(0, 1.5))
            process.send_signal(number)
            try:
                _, error = process.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                counters.hangs += 1
                process.kill()
                continue
            if b"Traceback" in error and b"import" not in error:  # before the program has started
                counters.tracebacks += 1
                fail(error.decode()[-300:])
    assert start(tmp_path, SHORT).wait(HANGS_S) == 0
    left = [path.name for path in tmp_path.iterdir() if path.name != "loop.mp4"]
    counters.leftovers += len(left)
    counters.notes += left
    counters.require_zeros()
