"""The index of a data set: every clip looked at once, the results kept, the useless ones counted."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError

from ..config import ClipConfig, DataConfig
from ..progress import refresh_s
from ..storage.locks import locked
from .probe import CRASHES, NOTHING, TOO_SLOW, Examiners, Finding
from .readers import Blob, Reader, Row, open_reader
from .readers.rows import pictures_in
from .table import ClipTable, TableWriter
from .video import resampled_counts

MISSING = "missing"
NO_CAPTION = "without a caption (data.uncaptioned: keep)"
HELD_OUT = "held out"
SUFFIX = ".clips"
SLOWEST = 0.98  # of clip.fps: 23.98 frames per second will do for 24
_VERSION = 2
_NO_SIGNATURE = bytes(16)

_log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Judgement:
    """What becomes of every row of an index under a run's settings.

    Attributes:
        reasons: by number; number 0 is "", for clips to train on.
        codes: `[rows]`, a number per row.
        frames: `[rows]`, frames at the run's rate.
    """

    reasons: tuple[str, ...]
    codes: np.ndarray
    frames: np.ndarray

    def rows(self, reason: str) -> np.ndarray:
        """The rows with a reason, ascending; "" for those to train on."""
        if reason not in self.reasons:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.codes == self.reasons.index(reason))

    def counts(self) -> dict[str, int]:
        """Rows per reason, the most common first."""
        counts = np.bincount(self.codes, minlength=len(self.reasons)).tolist()
        found = {reason: n for reason, n in zip(self.reasons, counts, strict=True) if n}
        return dict(Counter(found).most_common())


def open_index(data: DataConfig) -> ClipTable:
    """The index of a data set, made or renewed when its listing has changed.

    Only clips that are new or changed are examined, by `data.threads` child processes; an interrupted
    examination goes on where it was. Other processes that want the same index wait.

    Raises:
        LoopAnimateError: there are no clips, or the index cannot be written.
    """
    reader, path = open_reader(data), index_path(data)
    state = _state(reader)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoopAnimateError(f"cannot keep the index in {path.parent}: {error}") from error
    table = _existing(path)
    if table is not None and table.state == state:
        return table
    with locked(path.with_suffix(".lock")):
        table = _existing(path)
        if table is None or table.state != state:
            try:
                _build(path, reader, data, state, table)
            except OSError as error:  # what was examined is in the journal
                raise LoopAnimateError(
                    f"cannot make the index {path}: {error.strerror or error}; the same command goes on"
                ) from error
            table = ClipTable(path)
    return table


def index_path(data: DataConfig) -> Path:
    """Where the index of a data set lies: in `data.index`, else in `data.cache`, else in the user's cache."""
    folder = data.index or data.cache
    if folder is None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "loopanimate" / "index"
    what = (
        _VERSION, data.source, str(data.path.resolve()), str(data.root), str(data.masks), data.outside,
        sorted(data.columns.items()), data.clips,
    )  # fmt: skip
    digest = hashlib.blake2b(repr(what).encode("utf-8", "surrogateescape"), digest_size=6)
    return folder / f"{data.path.resolve().stem}-{digest.hexdigest()}{SUFFIX}"


def judge(table: ClipTable, data: DataConfig, clip: ClipConfig) -> Judgement:
    """Sort the rows of an index by what becomes of them in a run."""
    frames = resampled_counts(table.column("frames"), frame_rates(table), clip.fps)
    reasons, codes = list(table.reasons), table.column("reason").astype(np.uint8)

    def leave_out(rows: np.ndarray, reason: str) -> None:
        codes[(codes == 0) & rows] = len(reasons)
        reasons.append(reason)

    if data.uncaptioned == "leave_out":
        leave_out(table.column("lengths")[:, 2] == 0, NO_CAPTION)
    if clip.fps is not None:
        rates = frame_rates(table)
        slow = (rates > 0) & (rates < SLOWEST * clip.fps)
        leave_out(slow, f"slower than {clip.fps:g} frames per second")
    leave_out(frames < clip.span_frames, f"shorter than {clip.span_frames} frames")
    leave_out(is_held_out(table.column("origin"), data.held_out_share), HELD_OUT)
    return Judgement(tuple(reasons), codes, frames)


def usable_rows(
    table: ClipTable, data: DataConfig, clip: ClipConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to train on, rows held out, and the frames of every row; says what is left out.

    Raises:
        LoopAnimateError: none is usable; the message counts the reasons.
    """
    judgement = judge(table, data, clip)
    train, held_out = judgement.rows(""), judgement.rows(HELD_OUT)
    counts = judgement.counts()
    counts.pop("", None)
    told = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    if not len(train):
        raise LoopAnimateError(f"none of {len(table)} clips can be used: {told}")
    if counts:
        _log.warning("%d of %d clips are used; left out: %s", len(train), len(table), told)
    return train, held_out, judgement.frames


def frame_rates(table: ClipTable) -> np.ndarray:
    """Frames per second of every row, 0 where time means nothing."""
    seconds = table.column("ticks_per_frame") * table.column("tick_s")
    return np.divide(1.0, seconds, out=np.zeros(len(table)), where=seconds > 0)


def is_held_out(origins: np.ndarray, share: float) -> np.ndarray:
    """Which clips are kept for validation: by a hash of the file, so that no order, addition or other
    stage changes it, and all clips cut from one video go together."""
    if share <= 0:
        return np.zeros(len(origins), bool)
    # The hash that names the content is mixed once more, so that no other use of it is mirrored here.
    mixed = (origins * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)
    return mixed < np.uint64(int(share * (1 << 53)))


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int
) -> Generator[R, None, None]:
    """`map` in threads, in order, with no more than `ahead` items under way: items may be millions."""
    with ThreadPoolExecutor(threads) as pool:
        under_way: deque[Future[R]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(function, item))
                if len(under_way) >= ahead:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _existing(path: Path) -> ClipTable | None:
    if not path.is_file():
        return None
    try:
        return ClipTable(path)
    except LoopAnimateError as error:
        _log.warning("%s; it is made anew", error)
        return None


def _state(reader: Reader) -> str:
    digest = hashlib.blake2b(f"{_VERSION} {reader.name}".encode(), digest_size=16)
    for part in reader.state():
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class _Looked:
    row: Row
    finding: Finding
    signature: bytes = _NO_SIGNATURE
    stat: tuple[int, int] = (-1, 0)
    new: bool = False


def _build(path: Path, reader: Reader, data: DataConfig, state: str, old: ClipTable | None) -> None:
    journal = path.with_suffix(".journal")
    known = _Known(old, journal)

    def rows() -> Iterator[Row]:
        return islice(reader.rows(), data.clips)

    def look(row: Row) -> _Looked:
        if row.reason:
            return _Looked(row, Finding(NOTHING))
        try:
            signature, stat = signature_of(row), stat_of(row.media)
        except OSError:
            return _Looked(row, Finding(NOTHING, reason=MISSING))
        finding = known.get(signature)
        if finding is not None:
            return _Looked(row, finding, signature, stat)
        finding = examiners.examine(row)
        if finding.reason in (CRASHES, TOO_SLOW):  # to be tried again next time
            return _Looked(row, finding, _NO_SIGNATURE, stat)
        return _Looked(row, finding, signature, stat, new=True)

    count = sum(1 for _ in rows())
    if not count:
        raise LoopAnimateError(f"there are no clips in {data.path}")
    with (
        Examiners(data.threads) as examiners,
        TableWriter(path) as writer,
        journal.open("a", encoding="ascii") as log,
    ):
        results = ordered_map(look, rows(), data.threads, 64 * data.threads)
        bar = tqdm(
            results, total=count, desc="index", unit="clip", mininterval=refresh_s(),
            delay=refresh_s(),  # none where it does not take long
        )  # fmt: skip
        for looked in bar:
            if looked.new:
                log.write(f"{looked.signature.hex()} {looked.finding.to_json()}\n")
                log.flush()
            writer.add(looked.row, looked.finding, looked.signature, looked.stat)
        writer.finish(state, reader.name)
    journal.unlink(missing_ok=True)


class _Known:
    """Findings of an earlier index, and of an examination that was cut off."""

    def __init__(self, old: ClipTable | None, journal: Path) -> None:
        self._old, self._journal = old, dict(_journal_lines(journal))
        self._keys = self._order = np.zeros(0, np.uint64)
        if old is not None and len(old):
            self._signatures = np.ascontiguousarray(old.column("signature"))
            heads = self._signatures.view("<u8")[:, 0]
            self._order = np.argsort(heads, kind="stable")
            self._keys = heads[self._order]

    def get(self, signature: bytes) -> Finding | None:
        if signature in self._journal:
            return self._journal[signature]
        head = np.frombuffer(signature, "<u8")[0]
        place = int(np.searchsorted(self._keys, head))
        while self._old is not None and place < len(self._keys) and self._keys[place] == head:
            row = int(self._order[place])
            if self._signatures[row].tobytes() == signature:
                return self._old.finding(row)
            place += 1
        return None


def _journal_lines(path: Path) -> Iterator[tuple[bytes, Finding]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        signature, _, finding = line.partition(" ")
        try:
            yield bytes.fromhex(signature), Finding.from_json(finding)
        except (ValueError, KeyError, TypeError):  # the last line, cut off
            continue


def signature_of(row: Row) -> bytes:
    """16 bytes that change with the place, size and time of change of a clip's files.

    Raises:
        OSError: a file is missing.
    """
    masks = None if row.masks is None else (row.masks, stat_of(row.masks, inside=True))
    what = (row.media, stat_of(row.media, inside=True), row.start_s, row.end_s, masks)
    return hashlib.blake2b(repr(what).encode("utf-8", "surrogateescape"), digest_size=16).digest()


def stat_of(blob: Blob, inside: bool = False) -> tuple[int, int]:
    """Bytes and time of change of a file; of a folder (-1, 0), or those of its pictures if `inside`.

    Raises:
        OSError: it is missing.
    """
    if not blob.path.is_dir():
        stat = blob.path.stat()
        return stat.st_size, stat.st_mtime_ns
    if not inside:
        return -1, 0
    stats = [path.stat() for path in pictures_in(blob.path)]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)
