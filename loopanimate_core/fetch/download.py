"""One file from a Hugging Face hub into its cache, checked; every failure is a sentence.

`huggingface_hub` does the work: it goes on after a broken connection, caches, and knows mirrors (`HF_ENDPOINT`),
tokens and `HF_HUB_OFFLINE`. It does not go on with a file after it has given up, or after Ctrl-C.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LoopAnimateError
from .recipes import RecipeFile

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH_CHUNK_BYTES = 1 << 22


def download(
    file: RecipeFile, *, endpoint: str | None = None, offline: bool = False, quiet: bool = False
) -> Path:
    """The path of a file in the hub's cache; it is downloaded if it is not there, and its SHA-256 is checked.

    Args:
        endpoint: address of a mirror; None takes `HF_ENDPOINT`, or the hub itself.
        offline: use only what is in the cache.
        quiet: no progress bar.

    Raises:
        LoopAnimateError: the file cannot be had, or is not the one that the recipe means.
    """
    hub = require_hub()
    where = endpoint or hub.constants.ENDPOINT
    with _plain_sentences(hub, file, where, offline), _progress_bars(hub, quiet):
        path = Path(
            hub.hf_hub_download(
                file.repository,
                file.file,
                revision=file.revision,
                endpoint=endpoint,
                local_files_only=offline,
                library_name="loopanimate",
            )
        )
        _require_hash(file, path, where)
    return path


def require_hub() -> Any:
    """The package huggingface_hub.

    Raises:
        LoopAnimateError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise LoopAnimateError(
            "fetching needs the Python package huggingface_hub; install it with:"
            " python -m pip install huggingface_hub"
        ) from error
    return huggingface_hub


def require_space(files: Iterable[RecipeFile], folder: Path, extra_mb: int = 0) -> None:
    """Raise LoopAnimateError if the disk of `folder` has less room than the files' known sizes and `extra_mb`."""
    needed_mb = sum(file.size_mb or 0 for file in files) + extra_mb
    while not folder.exists():
        folder = folder.parent
    free_mb = shutil.disk_usage(folder).free / 1e6
    if free_mb < needed_mb:
        raise LoopAnimateError(
            f"the disk of {folder} is too full: {needed_mb:,} MB are needed, {free_mb:,.0f} MB are free"
        )


def is_cached(file: RecipeFile) -> bool:
    """Whether a file is in the hub's cache."""
    found = require_hub().try_to_load_from_cache(file.repository, file.file, revision=file.revision)
    return isinstance(found, str)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _require_hash(file: RecipeFile, path: Path, where: str) -> None:
    if file.sha256 is None or (found := sha256_of(path)) == file.sha256:
        return
    blob = path.resolve()
    for stale in {path, blob}:
        stale.unlink(missing_ok=True)
    raise LoopAnimateError(
        f"{file.file} of {file.repository} at {where} has the SHA-256 {found[:12]}…, expected"
        f" {file.sha256[:12]}…; it was deleted, because it is damaged or another file"
    )


@contextmanager
def _progress_bars(hub: Any, quiet: bool) -> Iterator[None]:
    shown = not hub.utils.are_progress_bars_disabled()
    if quiet and shown:
        hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        if quiet and shown:
            hub.utils.enable_progress_bars()


@contextmanager
def _plain_sentences(hub: Any, file: RecipeFile, where: str, offline: bool) -> Iterator[None]:
    """Turn the hub's exceptions into sentences that say what to do."""
    try:
        yield
    except LoopAnimateError:
        raise
    except Exception as error:
        if not (isinstance(error, OSError) or type(error).__module__.startswith(("httpx", "hugg"))):
            raise
        raise LoopAnimateError(_sentence(hub, file, where, offline, error)) from error


def _sentence(hub: Any, file: RecipeFile, where: str, offline: bool, error: Exception) -> str:
    errors, repository = hub.errors, f"{file.repository} at {where}"
    for kind, say in _sentences(errors, file, repository, where):
        if isinstance(error, kind):
            return say()
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        if offline or hub.constants.HF_HUB_OFFLINE:
            return (
                f"{file.file} of {file.repository} is not in the cache {hub.constants.HF_HUB_CACHE}, and the"
                " network is not used offline; fetch it once without --offline and HF_HUB_OFFLINE"
            )
        return (
            f"{where} cannot be reached; check the network, or name a mirror with --endpoint (now"
            f" {_reason(error.__cause__ or error)})"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"the disk of {hub.constants.HF_HUB_CACHE} is full; make room, or set HF_HOME to another disk, and"
            " fetch again: complete files are kept"
        )
    if isinstance(error, PermissionError):
        return f"cannot write {error.filename or hub.constants.HF_HUB_CACHE}: {os.strerror(error.errno or 0)}"
    return (
        f"the download of {file.file} of {repository} broke off ({_reason(error)}); fetch again: complete files are"
        " kept"
    )


def _sentences(
    errors: Any, file: RecipeFile, repository: str, where: str
) -> tuple[tuple[Any, Callable[[], str]], ...]:
    """The hub's own reasons, the most special ones first."""
    return (
        (
            errors.GatedRepoError,
            lambda: (
                f"{repository} asks for a consent: log in at {where}/{file.repository}, accept its terms, then run"
                " `hf auth login` and fetch again"
            ),
        ),
        (
            errors.RepositoryNotFoundError,
            lambda: (
                f"there is no repository {repository}, or it is private; if you have access, run"
                " `hf auth login` and fetch again"
            ),
        ),
        (
            errors.RevisionNotFoundError,
            lambda: f"{repository} has no revision {file.revision} any more",
        ),
        (
            errors.RemoteEntryNotFoundError,
            lambda: f"{repository} has no file {file.file} at revision {file.revision}",
        ),
    )


def _reason(error: BaseException) -> str:
    """The first line of an exception."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
