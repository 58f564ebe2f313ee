"""Batches for every step: all draws are made here, stateless, and clips are prepared ahead in threads.

The clips of a run are numbered: step k uses numbers k·B … (k+1)·B - 1 for B clips per step. Which clip a
number means, its loop, noise and drops depend on the seed and the number alone, so a run resumes exactly
and sees the same data on any number of processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from loopanimate_core.errors import LoopAnimateError

from .. import alss
from ..config import RunConfig
from ..rng import python_rng, torch_rng
from .batch import Batch
from .latent_cache import ClipStore, EncodedClip
from .quarantine import Quarantine
from .source import BadClip

ATTEMPTS = 8  # different clips tried for one number; bad data stops the run long before


class Feed:
    """Makes clip number n of a run into tensors, and numbers into batches.

    Args:
        timesteps: length of the noise schedule.
        rank, world: this process and the number of processes.
        quarantine: JSON-lines file that lists clips which could not be read.
    """

    def __init__(
        self,
        config: RunConfig,
        store: ClipStore,
        timesteps: int,
        *,
        rank: int = 0,
        world: int = 1,
        quarantine: Path,
    ) -> None:
        if config.batch.size % world:
            raise LoopAnimateError(
                f"batch.size is {config.batch.size}; it must divide by the number of processes ({world})"
            )
        self.config, self.store, self.timesteps = config, store, timesteps
        self.rank, self.world = rank, world
        source = store.source
        self._bad = Quarantine(quarantine, source, range(len(source)), config.data.max_bad_share)

    def numbers(self, step: int, micro: int) -> range:
        """The clip numbers of this process in micro-batch `micro` of a step."""
        batch, share = self.config.batch, self.config.batch.size // self.world
        first = step * batch.clips + micro * batch.size + self.rank * share
        return range(first, first + share)

    @contextmanager
    def batches(self, start: int) -> Iterator[Iterator[list[Batch]]]:
        """An endless iterator over the micro-batches of step `start`, `start + 1`, …

        Raises:
            LoopAnimateError: too many clips are bad, those of the run so far among them.
        """
        self._bad.recall()
        with ThreadPoolExecutor(self.config.data.threads, thread_name_prefix="clips") as pool:
            try:
                yield self._iterate(pool, start)
            finally:
                pool.shutdown(cancel_futures=True)

    def batch(self, step: int, micro: int) -> Batch:
        """One micro-batch of this process."""
        rows = [self._row(number) for number in self.numbers(step, micro)]
        return Batch(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def _iterate(self, pool: ThreadPoolExecutor, step: int) -> Iterator[list[Batch]]:
        ahead: deque[list[Future[Batch]]] = deque()
        while True:
            while len(ahead) < self.config.data.prefetch:
                ahead.append(
                    [
                        pool.submit(self.batch, step, micro)
                        for micro in range(self.config.batch.accumulate)
                    ]
                )
                step += 1
            yield [future.result() for future in ahead.popleft()]

    def _row(self, number: int) -> tuple[Tensor, ...]:
        """The fields of `Batch` for one clip, without the leading N."""
        config, rng = self.config, python_rng(self.config.seed, "clip", number)
        loop = alss.loop_indices(
            config.clip.f,
            config.clip.stride,
            config.clip.reverse_steps,
            rng=rng,
            strict=config.clip.strict,
        )
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
            self.store.text(caption if keep_text else ""),
            torch.tensor(self._timestep(number)),
            torch.tensor(keep_turn),
        )

    def _timestep(self, number: int) -> int:
        """Uniform for each clip before the shift, and evenly spread over the clips of a step, which
        steadies the loss."""
        step, place = divmod(number, self.config.batch.clips)
        offset = python_rng(self.config.seed, "time", step).random()
        share = (offset + place / self.config.batch.clips) % 1.0
        return int(shifted(share, self.config.loss.timestep_shift) * self.timesteps)

    def _readable_clip(self, number: int, window: int, loop: list[int]) -> tuple[str, EncodedClip]:
        """Caption and window of clip `number`, or of a substitute when its file is bad."""
        for attempt in range(ATTEMPTS):
            clip_id = self.clip_id(number, attempt)
            if clip_id in self._bad:
                continue
            try:
                start = self.store.start_of(clip_id, window)
                return self.store.source.caption(clip_id), self.store.get(clip_id, start, loop)
            except BadClip as error:
                self._bad.add(clip_id, error)
        raise LoopAnimateError(
            f"{ATTEMPTS} clips in a row could not be read; quarantine.jsonl in the run's folder names them"
        )

    def clip_names(self, step: int) -> list[str]:
        """The clips of a step, over all processes; substitutes for unreadable ones are not looked up."""
        first = step * self.config.batch.clips
        numbers = range(first, first + self.config.batch.clips)
        return [self.store.source.name(self.clip_id(number)) for number in numbers]

    def clip_id(self, number: int, attempt: int = 0) -> int:
        """Every clip once per epoch in an order drawn anew; later attempts draw any clip."""
        count = len(self.store.source)
        if attempt:
            return python_rng(self.config.seed, "substitute", number, attempt).randrange(count)
        epoch, place = divmod(number, count)
        return int(_permutation(self.config.seed, epoch, count)[place])


def shifted(share: float, shift: float) -> float:
    """A share of the schedule moved towards noise, 0 and 1 staying (Esser et al. 2024, Eq. 23)."""
    return shift * share / (1.0 + (shift - 1.0) * share)


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=torch_rng(seed, "order", epoch))
