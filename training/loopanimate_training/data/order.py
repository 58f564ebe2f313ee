"""Which clip each sample of a run shows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from loopanimate_core.picture.shapes import Shape

from ..config import RunConfig
from ..rng import torch_rng
from .mixture import MixedSource, Turns
from .source import ClipSource


class ClipOrder:
    """The clips of a run's samples, in groups that have one shape each.

    The clips of a shape form a bucket, and a bucket shows all its clips once, in a new order each time. Groups
    take turns in proportion to the buckets: of N clips, n in a bucket, epoch e of the run (N samples) has
    ⌊(e+1)·n/group⌋ - ⌊e·n/group⌋ groups of that bucket, in an order drawn for the epoch. So clips that fill no
    group wait for the next epoch, and none is lost. With a single bucket, `group` does not matter.

    Args:
        buckets: the ids of the clips of each shape; at least one of them is not empty.
        group: number of consecutive samples that have one shape.
    """

    def __init__(self, seed: int, buckets: Mapping[Shape, Sequence[int]], group: int) -> None:
        self._shapes = [shape for shape, clip_ids in buckets.items() if len(clip_ids)]
        self._buckets = [buckets[shape] for shape in self._shapes]
        self._seed, self._group = seed, group
        self._sizes = tuple(map(len, self._buckets))

    def clip_id(self, number: int) -> int:
        """The clip of sample `number`: a function of it, the seed and the buckets alone."""
        bucket, place = self._place(number)
        count = self._sizes[bucket]
        epoch, place = divmod(place, count)
        return int(self._buckets[bucket][int(_permutation(self._seed, epoch, count)[place])])

    def shape(self, number: int) -> Shape:
        """The shape of sample `number`."""
        return self._shapes[self._place(number)[0]]

    def candidates(self, number: int) -> range:
        """The clips that may replace the one of sample `number`: all."""
        return range(sum(self._sizes))

    def _place(self, number: int) -> tuple[int, int]:
        """The bucket of a sample, and how many samples of that bucket come before it."""
        if len(self._buckets) == 1:
            return 0, number
        group, within = divmod(number, self._group)
        # The epoch of a group is the last one with no more groups before it. Rounding down costs each bucket
        # less than one group, so the epoch lies between these bounds.
        total = sum(self._sizes)
        low = group * self._group // total
        high = (group + len(self._sizes) + 1) * self._group // total + 2
        epoch = low + bisect_right(range(low, high), group, key=self._groups_before) - 1
        bucket, earlier = _turns(self._seed, epoch, self._group, self._sizes)
        index = group - self._groups_before(epoch)
        return int(bucket[index]), int(earlier[index]) * self._group + within

    def _groups_before(self, epoch: int) -> int:
        return sum(_groups(epoch, self._group, size) for size in self._sizes)


class MixedOrder:
    """The clips of a run over several data sets: `Turns` chooses the data set, and each has an order of its own.

    Args:
        orders: of each data set's own clips.
        unit: number of consecutive samples from one data set.
    """

    def __init__(
        self,
        seed: int,
        source: MixedSource,
        orders: Sequence[ClipOrder],
        shares: tuple[int, ...],
        unit: int,
    ) -> None:
        self._source, self._orders = source, orders
        self._turns = Turns(seed, shares, unit)

    def clip_id(self, number: int) -> int:
        part, own_number = self._turns(number)
        return self._source.ids_of(part)[self._orders[part].clip_id(own_number)]

    def shape(self, number: int) -> Shape:
        part, own_number = self._turns(number)
        return self._orders[part].shape(own_number)

    def candidates(self, number: int) -> range:
        return self._source.ids_of(self._turns(number)[0])


def clip_order(config: RunConfig, source: ClipSource) -> ClipOrder | MixedOrder:
    """The order of a run: every optimiser step has one shape, whatever `batch.accumulate` is. The samples of a step are
    from all data sets of a mix, or with several shapes from one."""
    if not isinstance(source, MixedSource):
        return _order_of(config, source)
    orders = [_order_of(config, part) for part in source.parts]
    unit = 1 if len(config.clip.all_shapes) == 1 else config.batch.clips
    return MixedOrder(config.seed, source, orders, config.data.shares, unit)


def _order_of(config: RunConfig, source: ClipSource) -> ClipOrder:
    shapes = config.clip.all_shapes
    if len(shapes) == 1:
        return ClipOrder(config.seed, {shapes[0]: range(len(source))}, config.batch.clips)
    buckets: dict[Shape, list[int]] = {shape: [] for shape in shapes}
    for clip_id in range(len(source)):
        buckets[source.shape(clip_id)].append(clip_id)
    return ClipOrder(config.seed, buckets, config.batch.clips)


def _groups(epoch: int, group: int, size: int) -> int:
    """Groups of a bucket of `size` clips before an epoch."""
    return epoch * size // group


@lru_cache(maxsize=8)
def _turns(
    seed: int, epoch: int, group: int, sizes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """For each group of an epoch: its bucket, and the number of earlier groups of that bucket."""
    before = np.array([_groups(epoch, group, size) for size in sizes])
    counts = np.array([_groups(epoch + 1, group, size) for size in sizes]) - before
    turns = np.repeat(np.arange(len(sizes)), counts)
    turns = turns[torch.randperm(len(turns), generator=torch_rng(seed, "turns", epoch)).numpy()]
    earlier = np.zeros(len(turns), np.int64)
    for bucket, first in enumerate(before):
        mine = turns == bucket
        earlier[mine] = first + np.arange(mine.sum())
    return turns, earlier


@lru_cache(maxsize=16)
def _permutation(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=torch_rng(seed, "order", epoch))
