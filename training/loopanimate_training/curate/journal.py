"""What has been measured so far: JSON Lines files, one per shard, which a killed curation continues from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.parsing import parse_json

from ..config import MeasureConfig
from ..data.index.earlier import signature_of
from ..data.readers.rows import Row
from ..data.shard import Shard
from ..storage.jsonl import JsonlWriter
from ..storage.locks import locked
from .outcome import QUARANTINED, Outcome

SUFFIX = ".scores"
_VERSION = 3  # of the measures: a change of what a score means raises it


class Journal:
    """The outcomes beside a table: `salient.scores/` for `salient.parquet`.

    An outcome belongs to the state of a clip's files, its caption and the settings of the measurement, so shards
    and curations with other settings share the folder, and a repaired file is measured again.
    """

    def __init__(self, table: Path, settings: MeasureConfig) -> None:
        self.folder = table.with_suffix(SUFFIX)
        values = settings.model_dump_json(exclude={"raft"} if settings.raft is None else None)
        self._settings = f"{_VERSION} {values} {_stamp(settings)}"

    def key(self, row: Row) -> str:
        """Identifies a measurement.

        Raises:
            OSError: a file of the clip is missing.
        """
        parts = signature_of(row).hex(), row.caption, self._settings
        text = "\0".join(parts).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=16).hexdigest()

    def read(self, retry: bool = False) -> dict[str, Outcome]:
        """Every outcome in the folder; with `retry` those of quarantined clips are left out."""
        found: dict[str, Outcome] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    try:
                        values = parse_json(line, "a row", finite=False)
                        found[values["key"]] = Outcome.from_values(values)
                    except (ValueError, KeyError, TypeError):  # cut off when the process was killed
                        continue
        return {key: one for key, one in found.items() if not (retry and one.status == QUARANTINED)}

    @contextmanager
    def writing(self, shard: Shard) -> Iterator[JsonlWriter]:
        """The file of a shard; another process with the same shard waits.

        Raises:
            LoopAnimateError: the folder cannot be created.
        """
        name = f"{shard.number + 1}-of-{shard.count}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LoopAnimateError(
                f"cannot create the folder {self.folder}: {error.strerror or error}"
            ) from error
        with locked(self.folder / f"{name}.lock"):
            yield JsonlWriter(self.folder / f"{name}.jsonl")


def _stamp(settings: MeasureConfig) -> str:
    """Changes when the network at a path is replaced."""
    stamps = []
    for path in (settings.network, settings.clip, settings.raft):
        if path is not None and path.exists():
            stat = path.stat()
            stamps.append(f"{stat.st_size} {stat.st_mtime_ns}")
    return " ".join(stamps)
