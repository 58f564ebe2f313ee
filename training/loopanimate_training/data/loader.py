"""The batches of every step. All random draws of a run are made here, and clips are prepared in threads.

The samples of a run are numbered: with B clips per step, step k uses samples k·B … (k+1)·B - 1. Which clip a
sample shows, its loop, noise and dropped conditions depend on the seed and the number alone. So a run resumes
exactly, and sees the same data with any number of processes. All samples of a step have one shape.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from loopanimate_core.errors import LoopAnimateError

from ..config import BatchConfig, RunConfig
from ..rng import python_rng, torch_rng
from .batch import Batch
from .clip_encoder import EncodedClip
from .latent_cache import LatentCache
from .loops import draw_loop
from .order import clip_order
from .quarantine import Quarantine
from .video.bad_clip import BadClip

ATTEMPTS = 8  # clips tried for one sample; max_bad_share stops a run with bad data long before


class ClipLoader:
    """Makes samples into tensors, and batches of them.

    Args:
        timesteps: length of the noise schedule.
        rank, world: number of this process, and of all processes.
        quarantine: JSON-lines file that lists clips which could not be read.
    """

    def __init__(
        self,
        config: RunConfig,
        cache: LatentCache,
        timesteps: int,
        *,
        rank: int = 0,
        world: int = 1,
        quarantine: Path,
    ) -> None:
        require_divisible(config.batch, world)
        self.config, self.cache, self.timesteps = config, cache, timesteps
        self.rank, self.world = rank, world
        source = cache.source
        self._order = clip_order(config, source)
        self._bad = Quarantine(quarantine, source, range(len(source)), config.data.max_bad_share)

    def numbers(self, step: int, micro: int) -> range:
        """The samples of this process in micro-batch `micro` of a step."""
        batch, share = self.config.batch, self.config.batch.size // self.world
        first = step * batch.clips + micro * batch.size + self.rank * share
        return range(first, first + share)

    @contextmanager
    def batches(self, start: int) -> Iterator[Iterator[list[Batch]]]:
        """An endless iterator over the micro-batches of step `start`, `start + 1`, …

        Raises:
            LoopAnimateError: too many clips are bad, counting those of the run so far.
        """
        self._bad.load()
        with ThreadPoolExecutor(self.config.data.threads, thread_name_prefix="clips") as pool:
            try:
                yield self._iterate(pool, start)
            finally:
                pool.shutdown(cancel_futures=True)

    def batch(self, step: int, micro: int) -> Batch:
        """One micro-batch of this process."""
        samples = [self.sample(number) for number in self.numbers(step, micro)]
        return Batch(*(torch.stack(column) for column in zip(*samples, strict=True)))

    def sample(self, number: int) -> tuple[Tensor, ...]:
        """The fields of `Batch` for one sample, without the leading N."""
        config, rng = self.config, python_rng(self.config.seed, "clip", number)
        loop = draw_loop(config.clip, rng)
        window = rng.randrange(1 << 30)
        keep_turn, keep_text, keep_image = (
            rng.random() >= drop
            for drop in (config.loss.drop_turn, config.loss.drop_text, config.loss.drop_image)
        )
        caption, clip = self._readable_clip(number, window, loop)
        latents = clip.loop(loop)
        noise = torch.randn(latents.shape, generator=torch_rng(config.seed, "noise", number))
        return (
            latents,
            noise,
            clip.masks.float(),
            clip.image_embeds.float() * keep_image,
            self.cache.text(caption if keep_text else ""),
            torch.tensor(self._timestep(number)),
            torch.tensor(keep_turn),
        )

    def clip_names(self, step: int) -> list[str]:
        """The clips of a step, over all processes. Substitutes for unreadable clips are not considered."""
        first = step * self.config.batch.clips
        numbers = range(first, first + self.config.batch.clips)
        return [self.cache.source.name(self.clip_id(number)) for number in numbers]

    def clip_id(self, number: int, attempt: int = 0) -> int:
        """The clip of a sample, see `ClipOrder`. If it is unreadable, later attempts draw any clip of its data set,
        which is cropped to the sample's shape."""
        if attempt:
            clips = self._order.candidates(number)
            rng = python_rng(self.config.seed, "substitute", number, attempt)
            return clips[rng.randrange(len(clips))]
        return self._order.clip_id(number)

    def _iterate(self, pool: ThreadPoolExecutor, step: int) -> Iterator[list[Batch]]:
        ahead: deque[list[Future[Batch]]] = deque()
        micro_batches = range(self.config.batch.accumulate)
        while True:
            while len(ahead) < self.config.data.prefetch:
                ahead.append([pool.submit(self.batch, step, micro) for micro in micro_batches])
                step += 1
            yield [future.result() for future in ahead.popleft()]

    def _timestep(self, number: int) -> int:
        """Before the shift, uniform for each sample. With `loss.spread_timesteps` also evenly spread over the
        samples of a step, which reduces the variance of the loss."""
        step, place = divmod(number, self.config.batch.clips)
        if self.config.loss.spread_timesteps:
            offset = python_rng(self.config.seed, "time", step).random()
            share = (offset + place / self.config.batch.clips) % 1.0
        else:
            share = python_rng(self.config.seed, "own time", number).random()
        return int(shifted(share, self.config.loss.timestep_shift) * self.timesteps)

    def _readable_clip(self, number: int, window: int, loop: list[int]) -> tuple[str, EncodedClip]:
        """Caption and window of a sample's clip, or of a substitute if it cannot be read."""
        shape = self._order.shape(number)
        for attempt in range(ATTEMPTS):
            clip_id = self.clip_id(number, attempt)
            if clip_id in self._bad:
                continue
            try:
                start = self.cache.start_of(clip_id, window)
                clip = self.cache.get(clip_id, start, loop, shape)
                return self.cache.source.caption(clip_id), clip
            except BadClip as error:
                self._bad.add(clip_id, error)
        raise LoopAnimateError(
            f"{ATTEMPTS} clips in a row could not be read; {self._bad.path} lists them"
        )


def require_divisible(batch: BatchConfig, processes: int) -> None:
    """Check that the processes can share the clips of a forward pass.

    Raises:
        LoopAnimateError: they cannot; the message says which settings train the same on so many processes.
    """
    if processes >= 1 and batch.size % processes == 0:
        return
    hint = ""
    if processes >= 1 and batch.clips % processes == 0:
        hint = (
            f"; the same clips per step on {processes}: --set batch.size={processes}"
            f" --set batch.accumulate={batch.clips // processes}"
        )
    raise LoopAnimateError(
        f"batch.size must be divisible by the number of processes ({processes}), got {batch.size}{hint}"
    )


def shifted(share: float, shift: float) -> float:
    """A share of the noise schedule moved towards more noise; 0 and 1 stay (Esser et al. 2024, Eq. 23)."""
    return shift * share / (1.0 + (shift - 1.0) * share)
