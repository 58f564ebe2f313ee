"""The command line: `loopanimate animate picture.png --prompt "bobbing up and down" -o loop.mp4`.

Each command is a file named as it is typed, with its options and its function. Heavy imports stay
inside the functions, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .parser import build_parser
from .run import run_command, say

PROGRAM = "loopanimate"
_PACKAGE = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see `loopanimate_core.exit_codes`)."""
    arguments = build_parser().parse_args(argv)
    with _plain_warnings():
        return run_command(PROGRAM, lambda: arguments.run(arguments))


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(PROGRAM, record.getMessage())


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Shows this package's warnings as plain lines on stderr, and hides those of libraries."""

    def show(message: Warning | str, category: object, filename: str, *_: object) -> None:
        if _PACKAGE in Path(filename).resolve().parents:
            say(PROGRAM, str(message))

    logger, handler = logging.getLogger(_PACKAGE.name), _StderrHandler()
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
