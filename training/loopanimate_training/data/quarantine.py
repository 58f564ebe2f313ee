"""Clips that could not be read: each is written down once, and too many of them stop the run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.parsing import Fields, MalformedError, parse_json

from ..storage.jsonl import JsonlWriter
from .source import ClipSource
from .video.bad_clip import BadClip


class Quarantine:
    """The bad clips among `clip_ids`, and a JSON-lines file that names each of them once.

    Clips are identified by their content, so a repaired one is no longer bad. Safe to call from several
    threads; other processes may add to the same file.
    """

    def __init__(
        self, path: Path, source: ClipSource, clip_ids: Sequence[int], max_share: float
    ) -> None:
        self.path, self._source = path, source
        self._clip_ids, self._max_share = clip_ids, max_share
        self._bad: set[int] = set()
        self._rows, self._lock = JsonlWriter(path), threading.Lock()

    def __len__(self) -> int:
        return len(self._bad)

    def __contains__(self, clip_id: int) -> bool:
        return clip_id in self._bad

    def load(self) -> None:
        """Read the bad clips of an earlier part of the run from the file.

        Raises:
            LoopAnimateError: there are too many.
        """
        if listed := self._listed():
            self._bad |= {i for i in self._clip_ids if self._source.key(i) in listed}
            require_few(len(self._bad), len(self._clip_ids), self._max_share, self.path)

    def add(self, clip_id: int, error: BadClip) -> None:
        """Add a clip that could not be read.

        Raises:
            LoopAnimateError: there are too many now.
        """
        with self._lock:
            if clip_id in self._bad:
                return
            self._bad.add(clip_id)
            key = self._source.key(clip_id)
            if key not in self._listed():
                name = self._source.name(clip_id)
                self._rows.write({"clip": name, "key": key, "error": str(error)})
            require_few(len(self._bad), len(self._clip_ids), self._max_share, self.path)

    def _listed(self) -> set[str]:
        """Keys of the clips in the file; a line cut off by a crash is ignored."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return set()
        keys = set()
        for line in lines:
            try:
                keys.add(Fields(parse_json(line, "a row", finite=False), "a row").text("key"))
            except MalformedError:
                continue
        return keys


def require_few(bad: int, count: int, max_share: float, listing: Path) -> None:
    """Refuse more than `max_share` of `count` clips. One bad clip is always allowed, unless the share is 0.

    Raises:
        LoopAnimateError: more are bad.
    """
    allowed = max(max_share * count, 1) if max_share > 0 else 0
    if bad > allowed:
        raise LoopAnimateError(
            f"{bad} of {count} clips could not be read, more than data.max_bad_share = {max_share:g} allows; "
            f"{listing} lists them: repair them and delete this file, or allow more"
        )
