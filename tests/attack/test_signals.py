"""Signals at any moment leave nothing half-written, and what SIGKILL leaves is swept by the next run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import pytest
from attacking import MINUTES, SIGNALS, Counters, files_below, seeds, usual_signals
from PIL import Image
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


def run(folder: Path, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a command in a folder, with a folder for temporary files of its own."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)},
        preexec_fn=usual_signals,
    )


def start(folder: Path, script: str) -> subprocess.Popen[bytes]:
    return run(folder, [sys.executable, "-c", script])


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
    assert files_below(tmp_path) == {tmp_path / "loop.mp4"}


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


# ------------------------------------------------------------------------------------ random moments
@dataclass(frozen=True)
class Victim:
    """A command that is stopped, and the same command when it is left alone."""

    command: list[str]
    next_run: list[str]
    lasts_s: float
    """How long the moments are spread over: its start, its work and its end."""


def victims(folder: Path, bundle: Path) -> list[Victim]:
    """`animate`, and programs that feed ffmpeg for ever; each of these has run once."""
    endless, short = ([sys.executable, "-c", script] for script in (ENDLESS, SHORT))
    Image.new("RGB", (64, 64), "red").save(folder / "pic.png")
    drawing = [sys.executable, "-m", "loopanimate_core", "animate", "pic.png", "-o", "drawn.mp4"]
    drawing += ["--bundle", str(bundle), "--frames", "15", "--force", "--sheet", "sheet.png"]
    found = []
    for command, alone, stretch in ((endless, short, 2.0), (drawing, drawing, 1.1)):
        began_s = time.monotonic()
        process = run(folder, alone)
        _, error = process.communicate(timeout=HANGS_S)
        assert process.returncode == 0, error
        found.append(Victim(command, alone, stretch * (time.monotonic() - began_s)))
    return [found[1], *[found[0]] * 7]  # drawing takes longest


def processes_in(folder: Path) -> set[str]:
    """The command lines of the processes whose working folder it is (Linux; none elsewhere)."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.joinpath("cwd").readlink() == folder:
                found.add(process.joinpath("cmdline").read_text().replace("\0", " ")[-80:])
    return found


@pytest.mark.skipif(
    not {MINUTES, SIGNALS} & set(os.environ), reason="its moments are never the same; `make attack`"
)
def test_signals_at_random_moments_leave_nothing_after_the_next_run(
    tmp_path: Path, toy_bundle_path: Path
) -> None:
    counters = Counters("signals")
    all_victims = victims(tmp_path, toy_bundle_path)
    for seed in seeds(int(os.environ.get(SIGNALS, 6))):
        random, victim = Random(seed), all_victims[seed % len(all_victims)]
        number = random.choice((signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL))
        process = run(tmp_path, victim.command)
        with counters.case(f"{number.name} {seed}") as fail:
            time.sleep(random.uniform(0, victim.lasts_s))
            process.send_signal(number)
            try:
                _, error = process.communicate(timeout=120)
            except subprocess.TimeoutExpired:
                counters.hangs += 1
                process.kill()
                _, error = process.communicate()
                fail(f"does not end: {error.decode()[-300:]}")
                continue
            # Before the command has begun, a signal acts as usual; in Python's own start, SIGINT is exit code 1. The
            # start reads the finder of an editable install, whose name has `loopanimate` in it too.
            in_start = b"KeyboardInterrupt" in error and b"loopanimate_core" not in error
            if process.returncode not in (0, -number, 128 + number, 1 if in_start else 0):
                fail(f"exit code {process.returncode}: {error.decode()[-300:]}")
            if b"Traceback" in error and b"in run_command" in error:
                counters.tracebacks += 1
                fail(error.decode()[-300:])
            with suppress(TimeoutError):
                wait_until("its children end", lambda: not processes_in(tmp_path), limit_s=30)
            if left := processes_in(tmp_path):
                counters.leftovers += 1
                fail(f"still runs: {left}")
    for victim in all_victims[:2]:
        assert run(tmp_path, victim.next_run).wait(HANGS_S) == 0
    results = {"pic.png", "loop.mp4", "loop_2.mp4", "drawn.mp4", "sheet.png"}
    results.add(".ses")  # by ONNX Runtime, in the folder for temporary files
    left = [path.name for path in files_below(tmp_path) if path.name not in results]
    counters.leftovers += len(left)
    counters.notes += left
    counters.require_zeros()
