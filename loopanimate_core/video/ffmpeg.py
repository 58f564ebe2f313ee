"""The ffmpeg program: where it is, which encoders it has, and running it with pipes."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from ..errors import LoopAnimateError
from ..processes import end_with_parent

MAX_LOG_BYTES = 1 << 20


@cache
def ffmpeg_path() -> str:
    """The ffmpeg that imageio-ffmpeg installs, or the one in the variable IMAGEIO_FFMPEG_EXE.

    Raises:
        LoopAnimateError: no ffmpeg was found.
    """
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise LoopAnimateError(
            "no ffmpeg was found; install imageio-ffmpeg or set IMAGEIO_FFMPEG_EXE to an ffmpeg"
        ) from error


@cache
def encoders() -> frozenset[str]:
    """The names of the encoders that this ffmpeg was built with."""
    listing = b"".join(read_output(["-encoders"], "cannot list the encoders of ffmpeg"))
    return frozenset(re.findall(r"^ [VAS][A-Z.]{5} (\w\S*)", listing.decode(), flags=re.MULTILINE))


def feed(arguments: list[str], chunks: Iterable[bytes], failure: str) -> None:
    """Run ffmpeg with `chunks` on its standard input.

    Raises:
        LoopAnimateError: ffmpeg failed; the message is `failure` with ffmpeg's reason.
    """
    with _running(arguments, failure, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for chunk in chunks:
            try:
                process.stdin.write(chunk)
            except OSError:  # ffmpeg has stopped: its exit code and log tell why
                break


def read_output(arguments: list[str], failure: str) -> Iterator[bytes]:
    """Run ffmpeg and yield its standard output in pieces; raises as `feed` does."""
    with _running(arguments, failure, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(1 << 20):
            yield piece


@contextmanager
def _running(
    arguments: list[str], failure: str, *, stdin: int, stdout: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ffmpeg as a child process that never outlives the block: any exception kills it."""
    command = [ffmpeg_path(), "-hide_banner", "-v", "error", *arguments]
    with tempfile.TemporaryFile() as log:  # a file, because a full stderr pipe would stall ffmpeg
        process = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=log, preexec_fn=end_with_parent()
        )
        try:
            yield process
            if process.stdin:
                with suppress(OSError):
                    process.stdin.close()
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with suppress(OSError):
                        pipe.close()
        log.seek(0)
        if reason := _reason(log.read(MAX_LOG_BYTES).decode(errors="replace"), code):
            raise LoopAnimateError(f"{failure}: {reason}")


def _reason(log: str, code: int) -> str | None:
    """Why ffmpeg failed: its first line of log, without the `[codec @ address]` prefix."""
    if re.search("partial file|ended prematurely", log):  # ffmpeg itself exits with 0 here
        return "the file is incomplete"
    if code == 0:
        return None
    if "No space left on device" in log:
        return "No space left on device"
    lines = [line for line in log.splitlines() if line.strip()]
    if not lines:
        return f"ffmpeg stopped with exit code {code}"
    return re.sub(r"^(\[[^\]]*\] ?)+", "", lines[0]).strip()


def file_url(path: Path) -> str:
    """The path as `file:…`, so that ffmpeg does not read a protocol or an option in a file's name."""
    return f"file:{path}"


def input_file(path: Path) -> list[str]:
    """The arguments for a file to read; what is in it cannot open another kind of source, such as a socket."""
    return ["-protocol_whitelist", "file,pipe", "-i", file_url(path)]
