"""The ffmpeg program: found, asked what it can do, run with pipes, and its errors put in one sentence."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

from ..errors import LoopAnimateError


@cache
def ffmpeg_path() -> str:
    """The ffmpeg that imageio-ffmpeg brings, or the one IMAGEIO_FFMPEG_EXE names.

    Raises:
        LoopAnimateError: there is none.
    """
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise LoopAnimateError(
            "no ffmpeg was found: install imageio-ffmpeg or name one in IMAGEIO_FFMPEG_EXE"
        ) from error


@cache
def encoders() -> frozenset[str]:
    """Names of the encoders this ffmpeg was built with."""
    listing = b"".join(read_output(["-encoders"], "cannot ask ffmpeg for its encoders"))
    return frozenset(re.findall(r"^ [VAS][A-Z.]{5} (\w\S*)", listing.decode(), flags=re.MULTILINE))


def feed(arguments: list[str], chunks: Iterable[bytes], failure: str) -> None:
    """Run ffmpeg with `chunks` on its standard input.

    Raises:
        LoopAnimateError: ffmpeg failed; the message is `failure` and ffmpeg's own reason.
    """
    with _running(arguments, failure, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for chunk in chunks:
            try:
                process.stdin.write(chunk)
            except OSError:  # ffmpeg gave up: its exit code and log say why
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
    """ffmpeg as a child that never outlives the block: any exception, Ctrl-C too, kills it."""
    command = [ffmpeg_path(), "-hide_banner", "-v", "error", *arguments]
    with tempfile.TemporaryFile() as log:  # a file, because a full stderr pipe would stall ffmpeg
        process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=log)
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
        if reason := _reason(log.read().decode(errors="replace"), code):
            raise LoopAnimateError(f"{failure}: {reason}")


def _reason(log: str, code: int) -> str | None:
    """Why ffmpeg failed: the line that names the cause, without its `[codec @ address]` prefix."""
    if re.search("partial file|ended prematurely", log):  # ffmpeg itself is content with a part
        return "the file is cut short"
    if code == 0:
        return None
    if "No space left on device" in log:
        return "No space left on device"
    lines = [line for line in log.splitlines() if line.strip()]
    if not lines:
        return f"ffmpeg stopped with exit code {code}"
    return re.sub(r"^(\[[^\]]*\] ?)+", "", lines[0]).strip()
