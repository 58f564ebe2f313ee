"""Filling the cache of a run before it starts; training does the same on first touch.

Windows and captions are named by their content and written whole or not at all, so filling can be stopped, started
again, and shared between processes, cards and machines; nothing is encoded twice.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from tqdm import tqdm

from loopanimate_core.encoders.vae import pixels_per_latent
from loopanimate_core.errors import LoopAnimateError

from ..config import RunConfig
from ..data.latent_cache import LatentCache
from ..data.quarantine import Quarantine
from ..data.video.bad_clip import BadClip
from ..loop import make_loader
from ..model.start import open_start
from ..progress import refresh_s
from ..run.requests import caught_signals
from ..storage.threads import ordered_map

BAD_CLIPS_FILE = "bad-clips.jsonl"
_HEADER_BYTES = 85  # of a safetensors file, per tensor
_ABANDONED_S = 3600.0  # a partial file this old has lost its writer
Say = Callable[[str], None]


@dataclass(frozen=True)
class Shard:
    """Share `number` (from 0) of `count` of the clips."""

    number: int = 0
    count: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """`2/8` as people count: the second of eight.

        Raises:
            LoopAnimateError: it reads otherwise, or is out of range.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise LoopAnimateError(f"--shard {text!r} must look like 2/8")
        if not 1 <= int(number) <= int(count):
            raise LoopAnimateError(f"--shard {text}: the first number must be 1 to {count}")
        return Shard(int(number) - 1, int(count))

    def split(self, number: int, count: int) -> Shard:
        """Part `number` of `count` of this share."""
        return Shard(self.number * count + number, self.count * count)

    def of(self, total: int) -> range:
        """Its numbers among `total`."""
        return range(self.number, total, self.count)


@dataclass(frozen=True)
class CachePlan:
    """What is there and what is to be done, for a share of the clips."""

    clips: int
    windows: int
    present: int
    window_bytes: int
    captions: int  # those to be encoded, the empty one among them
    caption_bytes: int
    pending: np.ndarray  # ids of clips with a window or their caption missing

    @property
    def missing_bytes(self) -> int:
        windows = self.windows - self.present
        return windows * self.window_bytes + self.captions * self.caption_bytes

    def describe(self, folder: Path, free_bytes: int) -> str:
        """One sentence with the size on disk."""
        return (
            f"{self.windows:,} windows of {self.clips:,} clips, {self.window_bytes / 1e6:.2f} MB each; "
            f"{self.present:,} are in {folder}, the others and {self.captions:,} captions take "
            f"{size_text(self.missing_bytes)} ({size_text(free_bytes)} free)"
        )


@dataclass(frozen=True)
class Filled:
    """How filling ended: `signal_number` is 0 when it came to its end."""

    windows: int
    bad_clips: int
    signal_number: int = 0


def fill_cache(config: RunConfig, shard: Shard | None = None, say: Say | None = None) -> Filled:
    """Encode every window and caption that is not there yet, of a share of the clips.

    Processes of `accelerate launch` split the share between them.

    Raises:
        LoopAnimateError: the run has no `data.cache`, the disk has no room for it, or more clips than
            `data.max_bad_share` cannot be read.
    """
    if config.data.cache is None:
        raise LoopAnimateError("data.cache is not set: say in which folder to keep the latents")
    try:
        config.data.cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoopAnimateError(
            f"data.cache is {config.data.cache}, and that folder cannot be made: {error.strerror or error}"
        ) from error
    say = say or (lambda text: None)
    accelerator = Accelerator(cpu=config.device == "cpu")
    store = make_loader(config, open_start(config.model, config.seed), accelerator).cache
    store.must_write = True
    mine = (shard or Shard()).split(accelerator.process_index, accelerator.num_processes)
    clip_ids = mine.of(len(store.source))
    plan = plan_cache(store, clip_ids)
    if mine.number == 0:
        _remove_abandoned(config.data.cache)
    free = shutil.disk_usage(config.data.cache).free
    say(plan.describe(config.data.cache, free))
    if plan.missing_bytes > free:
        raise LoopAnimateError(
            f"the cache would take {size_text(plan.missing_bytes)} more and {config.data.cache} has "
            f"{size_text(free)} free; fewer windows per clip (clip.starts_per_clip) take less"
        )
    bad = Quarantine(
        config.data.cache / BAD_CLIPS_FILE, store.source, clip_ids, config.data.max_bad_share
    )
    return _Filler(config, store, bad).run(plan, show=accelerator.is_main_process)


def plan_cache(store: LatentCache, clip_ids: Sequence[int]) -> CachePlan:
    """Count the windows of some clips, and those in the cache already, and the captions to be encoded."""
    windows = present = 0
    pending, new_captions = [], {path for path in [store.text_path_of("")] if is_missing(path)}
    for clip_id in clip_ids:
        paths = [store.path_of(clip_id, start) for start in window_starts(store, clip_id)]
        there = sum(path.exists() for path in paths)
        windows, present = windows + len(paths), present + there
        caption = store.text_path_of(store.source.caption(clip_id))
        if is_missing(caption):
            new_captions.add(caption)
        if there < len(paths) or is_missing(caption):
            pending.append(clip_id)
    return CachePlan(
        len(clip_ids), windows, present, window_bytes(store), len(new_captions),
        caption_bytes(store), np.array(pending, np.int64),
    )  # fmt: skip


def is_missing(path: Path | None) -> bool:
    """Whether a file of the cache has yet to be made."""
    return path is not None and not path.exists()


def window_starts(store: LatentCache, clip_id: int) -> list[int]:
    """The distinct starts that training draws for a clip, ascending."""
    windows = range(store.encoder.config.starts_per_clip)
    return sorted({store.start_of(clip_id, window) for window in windows})


def window_bytes(store: LatentCache) -> int:
    """The size of one window's file."""
    config, encoder = store.encoder.config, store.encoder
    side = pixels_per_latent(encoder.vae.config)
    places = (config.height_px // side) * (config.width_px // side)
    settings: Any = encoder.image_encoder.config
    embeds = settings.projection_dim
    return 2 * 4 * store.window_frames * places + 2 * places + 2 * embeds + 3 * _HEADER_BYTES


def caption_bytes(store: LatentCache) -> int:
    """The size of one caption's file."""
    if store.encoder.text_encoder is None:
        return 0
    settings: Any = store.encoder.text_encoder.config
    return 2 * settings.max_position_embeddings * settings.hidden_size + _HEADER_BYTES


def size_text(size_bytes: float) -> str:
    """`1.2 GB`, in powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"


class _Filler:
    def __init__(self, config: RunConfig, store: LatentCache, bad: Quarantine) -> None:
        self._config, self._store, self._bad = config, store, bad
        self._caught: list[int] = []

    def run(self, plan: CachePlan, show: bool) -> Filled:
        windows, threads = plan.present, self._config.data.threads
        with caught_signals() as self._caught:
            self._store.text("")  # what a dropped caption is
            work = ordered_map(self._fill, plan.pending.tolist(), threads, 4 * threads)
            bar = tqdm(
                work, total=len(plan.pending), desc="cache", unit="clip", mininterval=refresh_s(),
                disable=not show,
            )  # fmt: skip
            for done in bar:
                windows += done
                if self._caught:
                    break
            bar.close()
            work.close()
        return Filled(windows, len(self._bad), self._caught[0] if self._caught else 0)

    def _fill(self, clip_id: int) -> int:
        """Windows of a clip that are new in the cache."""
        done = 0
        try:
            for start in window_starts(self._store, clip_id):
                if self._caught:
                    break
                if is_missing(self._store.path_of(clip_id, start)):
                    self._store.get(clip_id, start)
                    done += 1
            self._store.text(self._store.source.caption(clip_id))
        except BadClip as error:
            self._bad.add(clip_id, error)
        return done


def _remove_abandoned(cache: Path) -> None:
    """Remove what a killed process had begun to write; a living one is never that slow."""
    for path in cache.glob("*/.partial-*"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
        except OSError:  # another process was quicker
            continue
