"""Loops that are brought from servers into one folder: complete, of the right kind, and under names of our own."""

from __future__ import annotations

import filecmp
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

from ..errors import LoopAnimateError
from ..files import partial_file, put_in_place
from ..video.filenames import safe_stem
from .answers import ServerFile
from .bodies import local_suffix, require_format
from .client import ComfyClient
from .state import Record
from .transport import CutShortError

FETCH_ATTEMPTS = 3


class CannotWriteError(LoopAnimateError):
    """The folder is read-only or the disk is full: no picture can be finished."""


class Downloads:
    """The folder of `--out`. Names are relative to it: `cat.mp4`, or `cat/a.mp4` for several files."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, str(out.resolve())
        self._lock, self._taken = threading.Lock(), set[str]()

    def has(self, record: Record) -> bool:
        """Whether all loops of a record are in this folder."""
        here = record.folder == self.folder and bool(record.results)
        return here and all((self.out / name).is_file() for name in record.results)

    def bring(
        self,
        client: ComfyClient,
        stem: str,
        files: tuple[ServerFile, ...],
        planned: tuple[str, ...],
        plan: Callable[[tuple[str, ...]], None],
    ) -> tuple[str, ...]:
        """Download files and return their names here.

        Args:
            stem: of the picture.
            planned: the names that a run before a crash chose.
            plan: is called with the names before they are used.

        Raises:
            LoopAnimateError: a file is missing, incomplete or of an unknown kind.
            CannotWriteError: it cannot be written.
            ServerGoneError: the server does not answer.
        """
        suffixes = [local_suffix(file.filename) for file in files]
        chosen = len(planned) != len(files)
        names = self._names(stem, files, suffixes) if chosen else planned
        plan(names)
        try:
            with ExitStack() as stack:
                parts = [
                    stack.enter_context(_part(self.out / name, suffix))
                    for name, suffix in zip(names, suffixes, strict=True)
                ]
                for file, part, suffix in zip(files, parts, suffixes, strict=True):
                    _fetch(client, file, part)
                    require_format(part, suffix, file.filename)
                done = tuple(map(self._install, parts, names))
        except OSError as error:
            raise CannotWriteError(
                f"cannot write {error.filename or self.out}: {error.strerror or error}"
            ) from error
        finally:
            if len(files) > 1:
                with suppress(OSError):
                    (self.out / names[0]).parent.rmdir()  # if nothing came
        return done

    def _names(
        self, stem: str, files: tuple[ServerFile, ...], suffixes: list[str]
    ) -> tuple[str, ...]:
        if len(files) == 1:
            return (self._free(stem, suffixes[0]),)
        folder = self._free(stem, "")
        names: list[str] = []
        for file, suffix in zip(files, suffixes, strict=True):
            own = safe_stem(Path(file.filename).stem) or "loop"
            name, number = f"{folder}/{own}{suffix}", 1
            while name.casefold() in map(str.casefold, names):  # of another folder on the server
                number += 1
                name = f"{folder}/{own}_{number}{suffix}"
            names.append(name)
        return tuple(names)

    def _free(self, stem: str, suffix: str) -> str:
        """The first of `stem`, `stem_2`, … that neither exists nor was given away."""
        with self._lock:
            name, number = f"{stem}{suffix}", 1
            while name in self._taken or (self.out / name).exists():
                number += 1
                name = f"{stem}_{number}{suffix}"
            self._taken.add(name)
        return name

    def _install(self, part: Path, name: str) -> str:
        """Name a finished file; another name if a process has taken it for something else meanwhile."""
        while True:
            target = self.out / name
            try:
                put_in_place(part, target, replace=False)
            except FileExistsError:
                if target.is_file() and filecmp.cmp(part, target, shallow=False):
                    return name  # from before a crash
                folder, _, last = name.rpartition("/")
                prefix = f"{folder}/" if folder else ""
                name = prefix + self._free_in(folder, Path(last))
                continue
            return name

    def _free_in(self, folder: str, last: Path) -> str:
        number = 2
        while (self.out / folder / f"{last.stem}_{number}{last.suffix}").exists():
            number += 1
        return f"{last.stem}_{number}{last.suffix}"


def _part(target: Path, suffix: str) -> AbstractContextManager[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    return partial_file(target.parent, suffix)


def _fetch(client: ComfyClient, file: ServerFile, part: Path) -> None:
    """Download a file, again if it comes incomplete."""
    for attempt in range(1, FETCH_ATTEMPTS + 1):
        try:
            with part.open("wb") as sink:
                for piece in client.fetch(file):
                    sink.write(piece)
            return
        except CutShortError as error:
            if attempt == FETCH_ATTEMPTS:
                raise LoopAnimateError(
                    f"the server does not send the whole file {file.filename} ({error})"
                ) from None
