"""Filling the cache of a run before it starts; training does the same on first use.

Windows and captions are named by their content and written completely or not at all. So filling can be stopped,
restarted, and shared between processes, GPUs and machines; nothing is encoded twice.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from loopanimate_core.encoders.vae import pixels_per_latent
from loopanimate_core.errors import LoopAnimateError

from ..config import DataConfig
from ..progress import refresh_s
from ..signals import caught_signals
from ..storage.threads import ordered_map
from .latent_cache import LatentCache
from .quarantine import Quarantine
from .shard import Shard
from .video.bad_clip import BadClip

BAD_CLIPS_FILE = "bad-clips.jsonl"
_HEADER_BYTES = 85  # of a safetensors file, per tensor
_ABANDONED_S = 3600.0  # a partial file this old was left by a process that is gone


@dataclass(frozen=True)
class CachePlan:
    """What is in the cache already and what is missing, for a share of the clips."""

    clips: int
    windows: int
    present: int
    window_bytes: int
    missing_bytes: int
    captions: int  # to be encoded, the empty caption included
    pending: np.ndarray  # ids of clips with a window, its masks or their caption missing

    def describe(self, folder: Path, free_bytes: int) -> str:
        """One sentence with the sizes on disk."""
        return (
            f"{self.windows:,} windows of {self.clips:,} clips, {self.window_bytes / 1e6:.2f} MB each; "
            f"{self.present:,} are in {folder}, the others and {self.captions:,} captions need "
            f"{size_text(self.missing_bytes)} ({size_text(free_bytes)} free)"
        )


@dataclass(frozen=True)
class Filled:
    """How filling ended; `signal_number` is 0 unless a signal stopped it."""

    windows: int
    bad_clips: int
    signal_number: int = 0


def fill(
    cache: LatentCache,
    data: DataConfig,
    shard: Shard,
    say: Callable[[str], None],
    *,
    show_progress: bool,
) -> Filled:
    """Encode every window and caption of a share of the clips that `cache` does not have yet.

    Args:
        say: gets one sentence with the sizes on disk, before the work starts.

    Raises:
        LoopAnimateError: the disk has too little space, or more clips than `data.max_bad_share` cannot be read.
    """
    assert cache.folder is not None
    clip_ids = shard.of(len(cache.source))
    plan = plan_cache(cache, clip_ids)
    if shard.number == 0:
        _remove_abandoned(cache.folder)
    free = shutil.disk_usage(cache.folder).free
    say(plan.describe(cache.folder, free))
    if plan.missing_bytes > free:
        raise LoopAnimateError(
            f"the cache needs {size_text(plan.missing_bytes)} more, but {cache.folder} has {size_text(free)} free; "
            "a smaller clip.starts_per_clip needs less"
        )
    bad = Quarantine(cache.folder / BAD_CLIPS_FILE, cache.source, clip_ids, data.max_bad_share)
    return _Filler(cache, bad, data.threads).run(plan, show_progress)


def plan_cache(cache: LatentCache, clip_ids: Sequence[int]) -> CachePlan:
    """Count the windows of some clips, those that the cache already has, and the captions to encode."""
    windows = present = missing_bytes = 0
    sizes = window_bytes(cache), masks_bytes(cache)
    pending, new_captions = [], {path for path in [cache.text_path_of("")] if is_missing(path)}
    for clip_id in clip_ids:
        starts, there = window_starts(cache, clip_id), 0
        for start in starts:
            files = cache.path_of(clip_id, start), cache.masks_path_of(clip_id, start)
            lacking = [size for path, size in zip(files, sizes, strict=True) if is_missing(path)]
            there += not lacking
            missing_bytes += sum(lacking)
        windows, present = windows + len(starts), present + there
        caption = cache.text_path_of(cache.source.caption(clip_id))
        if is_missing(caption):
            new_captions.add(caption)
        if there < len(starts) or is_missing(caption):
            pending.append(clip_id)
    return CachePlan(
        clips=len(clip_ids),
        windows=windows,
        present=present,
        window_bytes=sizes[0],
        missing_bytes=missing_bytes + len(new_captions) * caption_bytes(cache),
        captions=len(new_captions),
        pending=np.array(pending, np.int64),
    )


def is_missing(path: Path | None) -> bool:
    """Whether the cache keeps this file and does not have it yet."""
    return path is not None and not path.exists()


def window_starts(cache: LatentCache, clip_id: int) -> list[int]:
    """The distinct start frames that training draws for a clip, ascending."""
    config = cache.encoder.config
    every = cache.source.frame_count(clip_id) - config.span_frames + 1
    windows = range(every if config.starts_per_clip is None else config.starts_per_clip)
    return sorted({cache.start_of(clip_id, window) for window in windows})


def window_bytes(cache: LatentCache) -> int:
    """Size of a window's file, at the largest of the run's shapes."""
    encoder = cache.encoder
    width_px, height_px = encoder.config.largest_shape
    side = pixels_per_latent(encoder.vae.config)
    places = (height_px // side) * (width_px // side)
    settings: Any = encoder.image_encoder.config
    embeds = settings.projection_dim
    return 2 * 4 * cache.window_frames * places + 2 * places + 2 * embeds + 3 * _HEADER_BYTES


def masks_bytes(cache: LatentCache) -> int:
    """Size of a file of masks."""
    width_px, height_px = cache.encoder.config.largest_shape
    side = pixels_per_latent(cache.encoder.vae.config)
    return 2 * (height_px // side) * (width_px // side) + _HEADER_BYTES


def caption_bytes(cache: LatentCache) -> int:
    """Size of a caption's file."""
    if cache.encoder.text_encoder is None:
        return 0
    settings: Any = cache.encoder.text_encoder.config
    return 2 * settings.max_position_embeddings * settings.hidden_size + _HEADER_BYTES


def size_text(size_bytes: float) -> str:
    """`1.2 GB`, in powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"


class _Filler:
    def __init__(self, cache: LatentCache, bad: Quarantine, threads: int) -> None:
        self._cache, self._bad, self._threads = cache, bad, threads
        self._caught: list[int] = []

    def run(self, plan: CachePlan, show_progress: bool) -> Filled:
        windows = plan.present
        with caught_signals() as self._caught:
            self._cache.text("")  # what a dropped caption is replaced by
            work = ordered_map(self._fill, plan.pending.tolist(), self._threads, 4 * self._threads)
            bar = tqdm(
                work,
                total=len(plan.pending),
                desc="cache",
                unit="clip",
                mininterval=refresh_s(),
                disable=not show_progress,
            )
            for done in bar:
                windows += done
                if self._caught:
                    break
            bar.close()
            work.close()
        return Filled(windows, len(self._bad), self._caught[0] if self._caught else 0)

    def _fill(self, clip_id: int) -> int:
        """Encode what is missing of a clip; returns the number of new windows."""
        done, cache = 0, self._cache
        try:
            for start in window_starts(cache, clip_id):
                if self._caught:
                    break
                files = (cache.path_of(clip_id, start), cache.masks_path_of(clip_id, start))
                if any(map(is_missing, files)):
                    cache.get(clip_id, start)
                    done += 1
            cache.text(cache.source.caption(clip_id))
        except BadClip as error:
            self._bad.add(clip_id, error)
        return done


def _remove_abandoned(folder: Path) -> None:
    """Remove partial files of killed processes; a process that still runs is never that slow."""
    for path in folder.glob("*/.partial-*"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
        except OSError:  # another process has removed it
            continue
