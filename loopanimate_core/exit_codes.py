"""What the exit codes of `loopanimate` and `loopanimate-train` mean."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of both commands; a run that another signal stops exits with 128 + its number."""

    OK = 0
    """The command did what it was asked to do."""
    FAILED = 1
    """`check`: the loop does not close. `batch`: pictures failed. `evaluate`: loops failed. `loopanimate-train`: a user error."""
    USER_ERROR = 2
    """`loopanimate`: a value, file or option cannot be used; stderr says why in one sentence."""
    INTERNAL_ERROR = 70
    """A bug of LoopAnimate (EX_SOFTWARE of sysexits.h); LOOPANIMATE_DEBUG=1 shows where."""
    NOT_SAVED = 74
    """`loopanimate-train`: the run stopped because the disk is full (EX_IOERR of sysexits.h)."""
    ASKED_TO_QUIT = 75
    """`loopanimate-train`: a file `save_quit` stopped the run after a save (EX_TEMPFAIL)."""
    HUNG_UP = 129
    """SIGHUP: the terminal was closed (128 + SIGHUP). Nothing half-written is left; a training run saves first."""
    INTERRUPTED = 130
    """Stopped by Ctrl-C (128 + SIGINT)."""
    BROKEN_PIPE = 141
    """The reader of stdout closed it, as `| head` does (128 + SIGPIPE)."""
    TERMINATED = 143
    """SIGTERM (128 + SIGTERM). Nothing half-written is left; a training run saves first."""
