"""Near-duplicates by hashes: found exactly up to the limit, and the first one stays."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopanimate_training.curate.duplicates import BITS, earlier_twins

hashes = st.lists(st.integers(0, 2**BITS - 1), max_size=12)


@given(hashes, st.integers(-1, 7))
def test_what_is_kept_differs_and_what_goes_has_a_twin_that_is_kept(
    found: list[int], most: int
) -> None:
    twins = earlier_twins(found, most)
    kept = [n for n, twin in enumerate(twins) if twin is None]
    for number, twin in enumerate(twins):
        near = [k for k in kept if k < number and (found[k] ^ found[number]).bit_count() <= most]
        assert twin == min(near, default=None)


@pytest.mark.parametrize("most", [0, 4, 7])
def test_a_copy_with_as_many_other_bits_as_allowed_is_a_twin(most: int) -> None:
    rng = random.Random(0)
    for _ in range(50):
        first = rng.getrandbits(BITS)
        other = first
        for bit in rng.sample(range(BITS), most):
            other ^= 1 << bit
        assert earlier_twins([first, other, first ^ (2**BITS - 1)], most) == [None, 0, None]


def test_minus_one_keeps_even_equal_clips() -> None:
    assert earlier_twins([5, 5], -1) == [None, None]
