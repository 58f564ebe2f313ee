"""Clips that could not be read: written down once each, counted, and too many of them are an error."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loopanimate_core.errors import LoopAnimateError

from ..storage.jsonl import Journal
from .bad_clip import BadClip

if TYPE_CHECKING:
    from .source import ClipSource


class Quarantine:
    """The bad ones of the clips `clip_ids`, and a file of JSON lines that names each once.

    Clips are told apart by their content: one that was mended is another. Safe to call from several threads;
    other processes may add to the same file.
    """

    def __init__(
        self, path: Path, source: ClipSource, clip_ids: Sequence[int], max_share: float
    ) -> None:
        self.path, self._source = path, source
        self._clip_ids, self._max_share = clip_ids, max_share
        self._bad: set[int] = set()
        self._journal, self._lock = Journal(path), threading.Lock()

    def __len__(self) -> int:
        return len(self._bad)

    def __contains__(self, clip_id: int) -> bool:
        return clip_id in self._bad

    def recall(self) -> None:
        """Count the clips that the file names, so that a resumed run does not start from none.

        Raises:
            LoopAnimateError: they are too many already.
        """
        if listed := self._listed():
            self._bad |= {i for i in self._clip_ids if self._source.key(i) in listed}
            require_few(len(self._bad), len(self._clip_ids), self._max_share, self.path)

    def add(self, clip_id: int, error: BadClip) -> None:
        """Set a clip aside.

        Raises:
            LoopAnimateError: it was one too many.
        """
        with self._lock:
            if clip_id in self._bad:
                return
            self._bad.add(clip_id)
            key = self._source.key(clip_id)
            if key not in self._listed():
                name = self._source.name(clip_id)
                self._journal.write({"clip": name, "key": key, "error": str(error)})
            require_few(len(self._bad), len(self._clip_ids), self._max_share, self.path)

    def _listed(self) -> set[str]:
        """Keys of the clips in the file; a line cut off by a crash is passed over."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return set()
        keys = set()
        for line in lines:
            try:
                keys.add(json.loads(line)["key"])
            except (ValueError, KeyError, TypeError):
                continue
        return keys


def require_few(bad: int, count: int, max_share: float, listing: Path) -> None:
    """Refuse more bad clips than `max_share` of `count`. A small set may have one too; 0 means none.

    Raises:
        LoopAnimateError: there are more.
    """
    allowed = max(max_share * count, 1) if max_share > 0 else 0
    if bad > allowed:
        raise LoopAnimateError(
            f"{bad} of {count} clips could not be read, more than data.max_bad_share = {max_share:g} allows; "
            f"{listing} names them: mend them and delete it, or allow more"
        )
