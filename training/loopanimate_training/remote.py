"""Paths of data that lie in an object store or on a server: `s3://bucket/clips`, read through fsspec."""

from __future__ import annotations

import errno
import importlib
import io
import os
import posixpath
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from loopanimate_core.errors import LoopAnimateError

_URL = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?!/)(.*)", re.DOTALL
)  # pathlib keeps one slash
_CHANGED = ("mtime", "LastModified", "last_modified", "updated", "created", "ETag", "etag")


class RemotePath(type(Path())):  # type: ignore[misc]
    """A `Path` with the part of its methods that reading a data set needs, over any protocol of fsspec.

    Its text is the URL again, so it survives `os.fspath`, JSON and the index. What goes wrong while reading is
    an `OSError`, as with files; a protocol that this machine cannot read is a `LoopAnimateError`.
    """

    def __str__(self) -> str:
        parts = self.parts
        return (
            f"{parts[0]}//{'/'.join(parts[1:])}"
            if parts and parts[0][-1] == ":"
            else "/".join(parts)
        )

    def __fspath__(self) -> str:
        return str(self)

    def as_posix(self) -> str:
        return str(self)

    def is_absolute(self) -> bool:
        return True

    def absolute(self) -> RemotePath:
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        return self

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """`st_size`, and as `st_mtime_ns` a number that changes with the file."""
        with _reading(self):
            files, place = _opened(self)
            info = files.info(place)
        return SimpleNamespace(st_size=int(info.get("size") or 0), st_mtime_ns=_changed(info))

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        with _reading(self):
            files, place = _opened(self)
            return files.exists(place)

    def is_file(self) -> bool:
        with _reading(self):
            files, place = _opened(self)
            return files.isfile(place)

    def is_dir(self) -> bool:
        with _reading(self):
            files, place = _opened(self)
            return files.isdir(place)

    def iterdir(self) -> Generator[RemotePath, None, None]:
        for _, folders, names in walk(self, at_most=1):
            yield from (self / name for name in (*folders, *names))

    def open(self, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> Any:  # type: ignore[override]  # fmt: skip
        if not set(mode) <= set("rbt"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        with _reading(self):
            files, place = _opened(self)
            file = files.open(place, "rb")
        return file if "b" in mode else io.TextIOWrapper(file, encoding, errors, newline)


def data_path(path: str | os.PathLike[str]) -> Path:
    """The path that a text names: a `RemotePath` for a URL (`file://` excepted), else an ordinary one."""
    text = os.fspath(path)
    if not (match := _URL.match(text)):
        if text.startswith("file://"):  # file:///home/...
            return Path(text.removeprefix("file://"))
        return path if isinstance(path, Path) else Path(path)
    if match[1].lower() == "file":  # pathlib has made one slash of three
        return Path("/" + match[2])
    inside = posixpath.normpath("/" + match[2]).lstrip("/")  # `..` cannot leave the server
    return RemotePath(f"{match[1].lower()}:/{inside}")


def is_url(text: str) -> bool:
    """Whether a text, such as a path in a table, is a URL."""
    return "://" in text and _URL.match(text) is not None


def walk(
    folder: Path, on_error: Callable[[OSError], None] | None = None, at_most: int | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """`os.walk` for both kinds of paths: a folder, and the names of the folders and files in it, in any order.

    Names taken out of the list of folders are not entered.

    Args:
        at_most: levels to list.
    """
    if not isinstance(folder, RemotePath):
        for level, (place, folders, names) in enumerate(os.walk(folder, onerror=on_error), start=1):
            yield Path(place), folders, names
            if level == at_most:
                return
        return
    with _reading(folder):
        files, place = _opened(folder)
        entries = files.ls(place, detail=True)
    inside = {entry["name"].rstrip("/"): entry["type"] for entry in entries}
    inside.pop(place.rstrip("/"), None)  # object stores list an empty object for the folder itself
    folders, names = (
        [
            name.rpartition("/")[2]
            for name, kind in inside.items()
            if (kind == "directory") == wanted
        ]
        for wanted in (True, False)
    )
    yield folder, folders, names
    if at_most is not None and at_most <= 1:
        return
    for name in folders:
        try:
            yield from walk(folder / name, on_error, None if at_most is None else at_most - 1)
        except OSError as error:
            if on_error is not None:
                error.filename = str(folder / name)
                on_error(error)


def picture_source(path: Path, most_bytes: int) -> Path | io.BytesIO:
    """What a picture is opened from: the path itself, or the bytes of a remote one.

    Raises:
        LoopAnimateError: it has more than `most_bytes`.
    """
    if not isinstance(path, RemotePath):
        return path
    with path.open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise LoopAnimateError(f"{path} is too large for a picture: at most {most_bytes:,} bytes")
    return io.BytesIO(data)


def _opened(path: RemotePath) -> tuple[Any, str]:
    """The file system of a path, and the path in it."""
    url = str(path)
    files = file_system(url.partition(":")[0], url.partition("://")[2].partition("/")[0])
    return files, files._strip_protocol(url)


@lru_cache(maxsize=64)
def file_system(protocol: str, host: str) -> Any:
    """fsspec's file system of a protocol. Credentials are what its package finds in the environment.

    Raises:
        LoopAnimateError: fsspec or the package of the protocol is not installed, or there is none.
    """
    url = f"{protocol}://{host}"
    try:
        fsspec = importlib.import_module("fsspec")
        return fsspec.core.url_to_fs(url)[0]
    except ImportError as error:
        missing = "fsspec" if getattr(error, "name", None) == "fsspec" else str(error)
        raise LoopAnimateError(
            f"{url} cannot be read without another package: {missing}"
        ) from error
    except ValueError as error:
        raise LoopAnimateError(f"{url} cannot be read: {error}") from error


@contextmanager
def _reading(path: RemotePath) -> Iterator[None]:
    """Turns what the packages of protocols raise into `OSError`."""
    try:
        yield
    except (OSError, LoopAnimateError, GeneratorExit):
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", str(path)) from error


def _changed(info: dict[str, Any]) -> int:
    """A number below 2^63 that changes with a file, from what its store tells about it."""
    value = next((info[name] for name in _CHANGED if info.get(name) is not None), 0)
    if isinstance(value, datetime):
        value = value.timestamp()
    if isinstance(value, int | float):
        return int(value * 1e9)
    return int.from_bytes(blake2b(str(value).encode(), digest_size=7).digest(), "little")
