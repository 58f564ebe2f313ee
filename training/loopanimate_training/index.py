"""The list of usable clips of a data set, and why the others are not."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

from .sources import BadClip
from .video import VideoFacts, examine_video

VIDEO_SUFFIXES = {".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".gif"}
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
INDEX_FILE = "index.jsonl"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A clip as the data set lists it: a video file or a folder of pictures, and what goes with it."""

    path: Path
    caption: str
    mask_path: Path | None = None


@dataclass(frozen=True)
class IndexedClip:
    """An entry and what was found in it. `reason` is empty for a usable one."""

    entry: Entry
    signature: str
    facts: VideoFacts
    reason: str = ""


def list_videos(path: Path) -> list[Entry]:
    """Entries of a folder of videos with captions beside them, or of a .csv or .jsonl table.

    A table needs the columns `path` (relative to the table) and `caption`, and may have `mask_path`.

    Raises:
        LoopAnimateError: nothing is there, or a column is missing.
    """
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
        return _require(path, [Entry(p, _caption_beside(p)) for p in found])
    entries = []
    for number, row in enumerate(_rows(path), start=1):
        if missing := sorted({"path", "caption"} - set(row)):
            raise LoopAnimateError(f"{path}: row {number} has no column {missing[0]!r}")
        mask = row.get("mask_path")
        entries.append(
            Entry(path.parent / row["path"], row["caption"], path.parent / mask if mask else None)
        )
    return _require(path, entries)


def list_frame_folders(path: Path) -> list[Entry]:
    """Entries of a folder of folders of pictures; `name.txt` beside `name/` is its caption, `name.masks/` its masks."""
    folders = (
        sorted(p for p in path.iterdir() if p.is_dir() and p.suffix != ".masks")
        if path.is_dir()
        else []
    )
    return _require(
        path,
        [
            Entry(
                p,
                _caption_beside(p),
                masks if (masks := p.parent / f"{p.name}.masks").is_dir() else None,
            )
            for p in folders
        ],
    )


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of their names."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)


def build_index(
    entries: Sequence[Entry], span_frames: int, cache: Path | None, threads: int
) -> list[IndexedClip]:
    """Examine every entry (once: results are kept in the cache folder) and return the usable ones.

    Raises:
        LoopAnimateError: none is usable; the message counts the reasons.
    """
    known = {clip.signature: clip for clip in _load(cache)}
    with ThreadPoolExecutor(threads) as pool:
        work = pool.map(lambda entry: _examine(entry, known), entries)
        clips = list(tqdm(work, total=len(entries), desc="clips", unit="clip", disable=None))
    if cache is not None:
        _save(cache, clips)
    clips = [_judge(clip, span_frames) for clip in clips]
    usable = [clip for clip in clips if not clip.reason]
    reasons = Counter(clip.reason for clip in clips if clip.reason)
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    if not usable:
        raise LoopAnimateError(f"none of {len(clips)} clips can be used: {counts}")
    if reasons:
        _log.warning("%d of %d clips are used; left out: %s", len(usable), len(clips), counts)
    return usable


def _examine(entry: Entry, known: dict[str, IndexedClip]) -> IndexedClip:
    signature = signature_of(entry.path)
    old = known.get(signature)
    if old is not None:
        return dataclasses.replace(old, entry=entry)
    nothing = VideoFacts(0, True, 0, 1.0)
    try:
        if entry.path.is_dir():
            return IndexedClip(
                entry, signature, VideoFacts(len(pictures_in(entry.path)), True, 0, 1.0)
            )
        return IndexedClip(entry, signature, examine_video(entry.path))
    except BadClip:
        return IndexedClip(entry, signature, nothing, "cannot be decoded")


def _judge(clip: IndexedClip, span_frames: int) -> IndexedClip:
    if clip.reason:
        return clip
    if not clip.facts.even:
        return dataclasses.replace(clip, reason="with uneven frame times")
    if clip.facts.frames < span_frames:
        return dataclasses.replace(clip, reason=f"shorter than {span_frames} frames")
    return clip


def signature_of(path: Path) -> str:
    """Names a version of a file or folder: path, size and time of change."""
    try:
        files = [path] if path.is_file() else pictures_in(path)
        stats = [file.stat() for file in files]
    except OSError:
        return f"{path} missing"
    size, changed = sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)
    return f"{path.resolve()} {size} {changed}"


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            if path.suffix == ".jsonl":
                yield from (json.loads(line) for line in file if line.strip())
            else:
                yield from csv.DictReader(file)
    except (OSError, ValueError) as error:
        raise LoopAnimateError(f"cannot read the table {path}: {error}") from error


def _require(path: Path, entries: list[Entry]) -> list[Entry]:
    if not entries:
        raise LoopAnimateError(f"there are no clips in {path}")
    return entries


def _caption_beside(path: Path) -> str:
    text = path.parent / (path.stem + ".txt")
    return text.read_text(encoding="utf-8").strip() if text.is_file() else ""


def _load(cache: Path | None) -> Iterable[IndexedClip]:
    path = cache / INDEX_FILE if cache else None
    if path is None or not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield IndexedClip(
            Entry(Path(), ""), row["signature"], VideoFacts(**row["facts"]), row["reason"]
        )


def _save(cache: Path, clips: Iterable[IndexedClip]) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_write(cache / INDEX_FILE) as partial, partial.open("w", encoding="utf-8") as file:
        for clip in clips:
            row = {
                "signature": clip.signature,
                "facts": dataclasses.asdict(clip.facts),
                "reason": clip.reason,
            }
            file.write(json.dumps(row) + "\n")
