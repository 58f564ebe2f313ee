"""Filling the latent cache of a run before it starts; training does the same on first touch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from accelerate import Accelerator
from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError

from .config import RunConfig
from .loop import make_feed
from .sources import BadClip
from .start import open_start


def fill_cache(config: RunConfig) -> tuple[int, int]:
    """Encode every window of every clip that is not there yet; returns how many windows are, and are not.

    It can be stopped and started again, and several processes share the work (`accelerate launch`).

    Raises:
        LoopAnimateError: the run has no `data.cache`.
    """
    if config.data.cache is None:
        raise LoopAnimateError("data.cache is not set: say in which folder to keep the latents")
    accelerator = Accelerator(cpu=config.device == "cpu")
    store = make_feed(config, open_start(config.model, config.seed), accelerator).store
    store.must_keep = True

    def fill(clip_id: int) -> int:
        starts = {store.start_of(clip_id, window) for window in range(config.clip.starts_per_clip)}
        try:
            for start in sorted(starts):
                store.get(clip_id, start)
        except BadClip:
            return 0
        return len(starts)

    mine = range(accelerator.process_index, len(store.source), accelerator.num_processes)
    with ThreadPoolExecutor(config.data.threads) as pool:
        bar = tqdm(
            pool.map(fill, mine),
            total=len(mine),
            unit="clip",
            disable=not accelerator.is_main_process,
        )
        counts = list(bar)
    return sum(counts), counts.count(0)
