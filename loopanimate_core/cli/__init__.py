"""The command line: `loopanimate animate picture.png --prompt "bobbing up and down" -o loop.mp4`.

Everything heavy is imported by the command that needs it, so `--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import LoopAnimateError
from .parser import build_parser

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

_PACKAGE = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done. 1: `check` found that the loop does not close. 2: the user's mistake, said in one
    sentence on stderr. 130: interrupted, nothing half-written is left. 141: nobody reads on.
    """
    arguments = build_parser().parse_args(argv)
    try:
        with _plain_warnings():
            code = arguments.run(arguments)
        sys.stdout.flush()  # so that a closed pipe is noticed here
    except LoopAnimateError as error:
        _say(str(error))
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        _say("interrupted; no half-written file is left")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader left (`| head`). Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return code


def _say(message: str) -> None:
    print(f"loopanimate: {message}", file=sys.stderr)


class _SayHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(record.getMessage())


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """This package's warnings as plain lines on stderr; what libraries tell programmers is not shown."""

    def show(message: Warning | str, category: object, filename: str, *_: object) -> None:
        if _PACKAGE in Path(filename).resolve().parents:
            _say(str(message))

    logger, handler = logging.getLogger(_PACKAGE.name), _SayHandler()
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
