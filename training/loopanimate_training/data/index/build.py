"""Building the index of a data set, and renewing it when the data has changed."""

from __future__ import annotations

import glob
import hashlib
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError

from ...config import DataConfig
from ...progress import refresh_s
from ...storage.locks import locked
from ...storage.threads import ordered_map
from ..readers.detect import open_reader
from ..readers.rows import Reader, Row
from ..shard import Shard
from .earlier import EarlierResults, journal_line, signature_of, stat_of
from .places import (
    VERSION,
    copy_index,
    index_path,
    make_known,
    names_before,
    other_places,
    user_folder,
    with_real_paths,
)
from .probe import ProbeResult, unusable
from .probe_pool import CRASHES, TOO_SLOW, ProbePool
from .table import ClipTable
from .table_writer import TableWriter

MISSING = "missing"
_NO_SIGNATURE = bytes(16)

_log = logging.getLogger(__name__)


def open_index(data: DataConfig) -> ClipTable:
    """The index of a data set; built on first use, and renewed when the data set has changed.

    It does not matter how the paths in `data` are written, nor which of the folders the index was first built in. Only new and changed clips are probed, in `data.threads` child processes. If that is interrupted, the
    next call continues. Other processes that need the same index wait.

    Raises:
        LoopAnimateError: there are no clips, or the index cannot be written.
    """
    reader, path = open_reader(with_real_paths(data)), index_path(data)
    state = _state(reader)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoopAnimateError(
            f"cannot create the index folder {path.parent}: {error.strerror or error}"
        ) from error
    table = _existing(path)
    if table is not None and table.state == state:
        return table
    with locked(path.with_suffix(".lock")):
        table = _existing(path)
        if table is None or table.state != state:
            try:
                found = [known for known in map(_existing, other_places(data)) if known]
                if current := next((known for known in found if known.state == state), None):
                    copy_index(current.path, path)
                else:
                    _build(path, reader, data, state, next(filter(None, [table, *found]), None))
                if current is None or current.path.parent != user_folder():
                    make_known(data)
            except OSError as error:  # finished probes are in the journal
                raise LoopAnimateError(
                    f"cannot write the index {path}: {error.strerror or error}; "
                    "the same command will continue where it stopped"
                ) from error
            table = ClipTable(path)
    return table


def probe_share(data: DataConfig, shard: Shard) -> int:
    """Examine a share of a data set's clips for its index; returns how many clips the share has.

    Several processes, of several machines if `data.index` is a folder that they share, do a share each; `open_index`
    then finds their results and writes the index. Clips that have been examined before are not examined again.

    Raises:
        LoopAnimateError: there are no clips, or the results cannot be written.
    """
    reader, path = open_reader(with_real_paths(data)), index_path(data)
    journal = path.with_suffix(f".{shard.number + 1}-of-{shard.count}.journal")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(journal.with_suffix(".lock")):
            old = next(filter(None, map(_existing, [path, *other_places(data)])), None)
            earlier = EarlierResults(old, _journals(path), names_before(data))
            share = shard.of(sys.maxsize)
            rows = islice(reader.rows(), share.start, data.clips, share.step)
            return sum(1 for _ in _examined(rows, earlier, data, journal))
    except OSError as error:
        raise LoopAnimateError(
            f"cannot write {journal}: {error.strerror or error}; the same command will continue where it stopped"
        ) from error


def _journals(path: Path) -> list[Path]:
    """The results that are not in an index yet: of an interrupted examination, and of shares."""
    found = path.parent.glob(f"{glob.escape(path.stem)}*.journal")
    return sorted(journal for journal in found if journal.is_file())


def _existing(path: Path) -> ClipTable | None:
    if not path.is_file():
        return None
    try:
        return ClipTable(path)
    except LoopAnimateError as error:
        _log.warning("%s; it will be rebuilt", error)
        return None


def _state(reader: Reader) -> str:
    """A hash that changes when the listing of the data set may have changed."""
    digest = hashlib.blake2b(f"{VERSION} {reader.name}".encode(), digest_size=16)
    for part in reader.state():
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _build(path: Path, reader: Reader, data: DataConfig, state: str, old: ClipTable | None) -> None:
    earlier = EarlierResults(old, journals := _journals(path), names_before(data))
    journal = path.with_suffix(".journal")

    def rows() -> Iterator[Row]:
        return islice(reader.rows(), data.clips)

    count = sum(1 for _ in rows())
    if not count:
        raise LoopAnimateError(f"there are no clips in {data.path}")
    with TableWriter(path) as writer:
        for entry in _examined(rows(), earlier, data, journal, count):
            writer.add(entry.row, entry.result, entry.signature, entry.stat)
        writer.finish(state, reader.name)
    for done in {journal, *journals}:
        done.unlink(missing_ok=True)


def _examined(
    rows: Iterable[Row],
    earlier: EarlierResults,
    data: DataConfig,
    journal: Path,
    count: int | None = None,
) -> Iterator[_Entry]:
    """The entries of rows, in order; new ones are in the journal before they are returned."""
    with ProbePool(data.threads) as pool, journal.open("a", encoding="ascii") as log:
        entries = ordered_map(
            lambda row: _probed(row, earlier, pool), rows, data.threads, 64 * data.threads
        )
        interval_s = refresh_s()  # a short run shows no bar at all
        bar = tqdm(
            entries,
            total=count,
            desc="index",
            unit="clip",
            mininterval=interval_s,
            delay=interval_s,
        )
        for entry in bar:
            if entry.new:
                log.write(journal_line(entry.signature, entry.result))
                log.flush()
            yield entry


@dataclass(frozen=True)
class _Entry:
    """A row of the index to be: what was listed, what is in it, and the state of its files."""

    row: Row
    result: ProbeResult
    signature: bytes = _NO_SIGNATURE
    stat: tuple[int, int] = (-1, 0)
    new: bool = False


def _probed(row: Row, earlier: EarlierResults, pool: ProbePool) -> _Entry:
    """The row with its result: none if the reader refused it, an earlier one, or a new one."""
    if row.reason:
        return _Entry(row, unusable())
    try:
        signature, stat = signature_of(row), stat_of(row.media)
    except OSError:
        return _Entry(row, unusable(MISSING))
    if (result := earlier.get(signature) or earlier.get_before(row)) is not None:
        return _Entry(row, result, signature, stat)
    result = pool.probe(row)
    if result.reason in (CRASHES, TOO_SLOW):  # without a signature it is tried again next time
        return _Entry(row, result, _NO_SIGNATURE, stat)
    return _Entry(row, result, signature, stat, new=True)
