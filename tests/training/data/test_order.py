"""Which clip a sample shows: every clip as often as any other, and one shape per group."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from loopanimate_core.picture.shapes import Shape
from loopanimate_training.data.order import ClipOrder
from loopanimate_training.rng import torch_rng

SQUARE, WIDE, HIGH = Shape(96, 96), Shape(128, 72), Shape(72, 128)
SIZES = [(50, 31, 7), (1, 100, 2), (3, 3, 3), (8, 0, 16), (1, 1, 1), (0, 0, 5)]


def buckets_of(sizes: tuple[int, ...], seed: int = 0) -> dict[Shape, list[int]]:
    """Buckets of these sizes, with the numbers from 0 shuffled over them."""
    ids = np.random.default_rng(seed).permutation(sum(sizes)).tolist()
    ends = np.cumsum(sizes)
    return {
        shape: sorted(ids[end - size : end])
        for shape, size, end in zip((SQUARE, WIDE, HIGH), sizes, ends, strict=True)
    }


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("group", [1, 4, 6])
def test_a_group_has_one_shape_and_its_clips(sizes: tuple[int, ...], group: int) -> None:
    buckets = buckets_of(sizes)
    order = ClipOrder(3, buckets, group)
    for first in range(0, 60 * group, group):
        shapes = {order.shape(number) for number in range(first, first + group)}
        assert len(shapes) == 1
        bucket = buckets[shapes.pop()]
        assert all(order.clip_id(number) in bucket for number in range(first, first + group))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("group", [1, 4, 6])
def test_a_bucket_shows_all_its_clips_before_any_again(sizes: tuple[int, ...], group: int) -> None:
    buckets = buckets_of(sizes)
    order = ClipOrder(3, buckets, group)
    numbers = range(5 * max(sum(sizes), group) // group * group)
    shown: dict[Shape, list[int]] = {shape: [] for shape in buckets}
    for number in numbers:
        shown[order.shape(number)].append(order.clip_id(number))
    for shape, bucket in buckets.items():
        rounds = [
            shown[shape][i : i + len(bucket)] for i in range(0, len(shown[shape]), len(bucket) or 1)
        ]
        assert all(sorted(one) == bucket for one in rounds[:-1])
        assert all(count == 1 for one in rounds[-1:] for count in Counter(one).values())


@pytest.mark.parametrize("sizes", SIZES)
def test_every_bucket_has_its_share_up_to_a_group(sizes: tuple[int, ...]) -> None:
    """After each epoch of N samples, a bucket of n clips has shown n per epoch, less what fills no group."""
    group, epochs = 4, 6
    buckets = buckets_of(sizes)
    order = ClipOrder(0, buckets, group)
    groups = 0
    for epoch in range(1, epochs + 1):
        expected = {shape: epoch * len(ids) // group for shape, ids in buckets.items()}
        groups = sum(expected.values())
        found = Counter(order.shape(group * index) for index in range(groups))
        assert found == Counter(expected)
    assert groups >= epochs * sum(sizes) // group - len(sizes)


def test_the_shapes_are_mixed_and_another_seed_gives_another_order() -> None:
    buckets = buckets_of((40, 40, 40))
    order, other = ClipOrder(0, buckets, 4), ClipOrder(1, buckets, 4)
    ours, theirs = ([o.shape(4 * i) for i in range(30)] for o in (order, other))
    assert ours != theirs and Counter(ours) == Counter(theirs)
    assert sum(a != b for a, b in pairwise(ours)) > 10
    first, second = ([order.shape(4 * (30 * epoch + i)) for i in range(30)] for epoch in (0, 1))
    assert first != second


def test_samples_do_not_depend_on_those_before_them() -> None:
    buckets = buckets_of((23, 11, 5))
    forwards, backwards = ClipOrder(0, buckets, 4), ClipOrder(0, buckets, 4)
    numbers = [*range(300), 10**6, 10**9]
    expected = {number: forwards.clip_id(number) for number in numbers}
    assert {number: backwards.clip_id(number) for number in reversed(numbers)} == expected


def test_with_one_shape_the_order_is_a_permutation_per_epoch() -> None:
    """The order of every earlier version: a run of one shape resumes with the same samples."""
    for group in (1, 4):
        for buckets in ({SQUARE: range(9)}, {WIDE: [], SQUARE: list(range(9))}):
            order = ClipOrder(5, buckets, group)
            for epoch in range(3):
                expected = torch.randperm(9, generator=torch_rng(5, "order", epoch)).tolist()
                assert [order.clip_id(9 * epoch + i) for i in range(9)] == expected
