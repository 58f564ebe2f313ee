"""Files: written completely or not at all, read only if they are plain files, and swept after a crash."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from .errors import LoopAnimateError

PARTIAL = ".partial-"
"""The start of the names of unfinished files and folders."""

_OWNED = re.compile(rf"{re.escape(PARTIAL)}([0-9a-f]{{8}})-(\d+)-.*")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_swept: set[str] = set()


# ------------------------------------------------------------------------------------ reading
def require_file(path: str | Path, what: str = "file", max_bytes: int | None = None) -> int:
    """Check by type and size, before opening it, that `path` is a file that can be read to its end.

    Devices, named pipes and sockets never end or block for ever, so they are refused.

    Args:
        what: the noun for the message, such as "picture file".
        max_bytes: the largest legal size.

    Returns:
        Its size in bytes.

    Raises:
        LoopAnimateError: there is no such file, it is not a plain file, or it is too large.
    """
    path = Path(path)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise LoopAnimateError(f"there is no {what} {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise LoopAnimateError(f"cannot read {path}: {reason}") from None
    for is_kind, kind in _KINDS:
        if is_kind(status.st_mode):
            raise LoopAnimateError(f"{path} is {kind}, expected a {what}")
    if max_bytes is not None and status.st_size > max_bytes:
        raise LoopAnimateError(
            f"{path} has {status.st_size:,} bytes; a {what} may have at most {max_bytes:,}"
        )
    return status.st_size


def read_file(path: str | Path, what: str = "file", max_bytes: int | None = None) -> bytes:
    """All bytes of a plain file. Raises as `require_file` does, and if the file cannot be read."""
    path = Path(path)
    size = require_file(path, what, max_bytes)
    try:
        with path.open("rb") as file:
            return file.read(size if max_bytes is None else max_bytes)
    except OSError as error:
        raise LoopAnimateError(f"cannot read {path}: {error.strerror or error}") from error


# ------------------------------------------------------------------------------------ writing
def make_folder(folder: Path) -> None:
    """Create a folder and those above it.

    Raises:
        LoopAnimateError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoopAnimateError(f"cannot create the folder {folder}: {error.strerror}") from error


@contextmanager
def atomic_write(path: str | Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any exception it is removed.

    The temporary file keeps the suffix, because encoders choose the container by it.

    Args:
        replace: False raises FileExistsError if another process has made `path` in the meantime.

    Raises:
        LoopAnimateError: the folder is missing or read-only, or the disk is full.
        FileExistsError: see `replace`.
    """
    path = Path(path)
    try:
        temporary = _new_partial(path.parent, path.suffix)
    except OSError as error:
        raise LoopAnimateError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
        put_in_place(temporary, path, replace=replace)
    except OSError as error:
        if isinstance(error, FileExistsError) and not replace:
            raise
        raise LoopAnimateError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path, *, replace: bool = True) -> None:
    """Give a finished temporary file its name. Raises OSError, FileExistsError without `replace`."""
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    os.chmod(temporary, 0o666 & ~umask())  # mkstemp makes files private
    if replace:
        os.replace(temporary, path)
    else:
        _rename_to_new(temporary, path)


def _new_partial(folder: Path, suffix: str) -> Path:
    sweep(folder)
    # A name that the file system holds, even if that of the result is as long as it can be.
    handle, name = tempfile.mkstemp(prefix=_prefix(), suffix=suffix[:20], dir=folder)
    os.close(handle)
    return Path(name)


def _rename_to_new(temporary: Path, path: Path) -> None:
    """Rename without replacing. Raises FileExistsError."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if path.exists():  # a file system without hard links, such as FAT
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(temporary, path)


@contextmanager
def partial_file(folder: Path, suffix: str) -> Iterator[Path]:
    """A helper file in `folder` that is removed at the end, by a later run if this one is killed."""
    temporary = _new_partial(folder, suffix)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def partial_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent` that is removed at the end, by a later run if this one is killed."""
    sweep(parent)
    temporary = Path(tempfile.mkdtemp(prefix=_prefix(), dir=parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# ------------------------------------------------------------------------------------ leftovers
def sweep(folder: Path) -> None:
    """Remove what processes of this machine that were killed have left in a folder; once per folder."""
    if os.name != "posix" or (key := os.path.abspath(folder)) in _swept:
        return
    _swept.add(key)
    try:
        with os.scandir(key) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(PARTIAL)]
    except OSError:
        return
    for name in names:
        path = Path(key, name)
        if name.startswith(_CLAIM):
            _remove_dead_claim(path)
            continue
        found = _OWNED.fullmatch(name)
        if found and found[1] == _machine() and not _runs(int(found[2])):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _prefix() -> str:
    return f"{PARTIAL}{_machine()}-{os.getpid()}-"


@cache
def _machine() -> str:
    """Eight hexadecimal digits for the set of processes that this process can see."""
    parts = [os.uname().nodename] if hasattr(os, "uname") else [""]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: os.readlink("/proc/self/ns/pid"),  # containers may share a host's name
    ):
        with suppress(OSError):
            parts.append(read())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it belongs to another user
        return True
    return True


# ------------------------------------------------------------------------------------ claims
_CLAIM = f"{PARTIAL}claim-"
_claims: dict[str, int] = {}


def claim(path: Path) -> bool:
    """Reserve a name for what this process will write; False if another process has reserved it.

    The reservation is a locked file beside `path`. It ends with `release_claims` or with the process.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    path = path.absolute()
    marker = path.with_name(_CLAIM + hashlib.sha256(os.fsencode(path.name)).hexdigest()[:20])
    if str(marker) in _claims:
        return True
    sweep(path.parent)
    while True:
        try:
            handle = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # writing the result will tell why
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError:  # a file system without locks
            os.close(handle)
            _remove(marker)
            return True
        try:  # its owner may have removed it between the two calls
            current = os.path.samestat(os.fstat(handle), os.stat(marker))
        except OSError:
            current = False
        if current:
            _claims[str(marker)] = handle
            return True
        os.close(handle)


def release_claims() -> None:
    """Give up all names that this process has reserved."""
    while _claims:
        marker, handle = _claims.popitem()
        _remove(Path(marker))
        with suppress(OSError):
            os.close(handle)


def _remove_dead_claim(marker: Path) -> None:
    try:
        import fcntl

        handle = os.open(marker, os.O_RDWR | os.O_CLOEXEC)
    except (ImportError, OSError):
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(marker)
    except OSError:
        pass
    finally:
        os.close(handle)


def umask() -> int:
    """The permissions that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
