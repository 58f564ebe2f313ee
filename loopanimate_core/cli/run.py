"""How a command ends: one sentence on stderr and an exit code instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ..errors import LoopAnimateError
from ..exit_codes import ExitCode


def run_command(
    program: str,
    command: Callable[[], int],
    *,
    user_error: int = ExitCode.USER_ERROR,
    interrupted: str = "interrupted; no half-written file is left",
) -> int:
    """Run `command` and return its exit code, or the code of the error that ended it.

    Args:
        program: the name that starts each message on stderr.
        user_error: the exit code of a `LoopAnimateError`, and of a file or disk error.
        interrupted: the message after Ctrl-C.
    """
    try:
        code = command()
        sys.stdout.flush()  # a closed pipe shows here at the latest
    except LoopAnimateError as error:
        say(program, str(error))
        return user_error
    except KeyboardInterrupt:
        say(program, interrupted)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout again when it exits: without this it would print a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        say(program, f"{where}{error.strerror or error}")
        return user_error
    return code


def say(program: str, message: str) -> None:
    """Print one line on stderr."""
    print(f"{program}: {message}", file=sys.stderr)
