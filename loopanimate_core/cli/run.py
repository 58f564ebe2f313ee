"""How a command ends: one sentence on stderr and an exit code instead of a traceback."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable

from ..errors import LoopAnimateError
from ..exit_codes import ExitCode
from ..files import release_claims
from ..parsing import plain_text
from ..processes import Stopped, stopping_signals

DEBUG = "LOOPANIMATE_DEBUG"
"""With this variable set, an internal error shows its traceback."""
MAX_MESSAGE = 2000


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
        interrupted: the message after Ctrl-C, SIGTERM or SIGHUP.
    """
    _show_every_character()
    try:
        with stopping_signals():
            code = command()
            sys.stdout.flush()  # a closed pipe shows here at the latest
    except LoopAnimateError as error:
        say(program, str(error))
        return user_error
    except Stopped as stopped:
        say(program, interrupted)
        return 128 + stopped.number
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
    except MemoryError:
        say(program, "there is not enough memory")
        return user_error
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        say(
            program,
            f"internal error ({type(error).__name__}: {error}); please report it with what {DEBUG}=1"
            " shows",
        )
        return ExitCode.INTERNAL_ERROR
    finally:
        release_claims()
    return code


def say(program: str, message: str) -> None:
    """Print one line on stderr, without control characters that a file or a server may have put in it."""
    print(f"{program}: {plain_text(message, MAX_MESSAGE)}", file=sys.stderr)


def _show_every_character() -> None:
    """Show what the terminal's encoding lacks, or a file name that is not UTF-8, as an escape: no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
