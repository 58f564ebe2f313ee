"""The Asymmetric Loop Sampling Strategy (Eq. 3, 4)."""

import itertools
import random
from collections import Counter

import pytest

from loopanimate_core import LoopAnimateError
from loopanimate_training import alss

SCALED = {"stride": 3, "steps": (1, 2, 3, 4)}  # the paper's 6 and {2, 4, 6, 8}, halved


@pytest.mark.parametrize(("f", "paths"), [(8, 1_128), (11, 44_803), (18, 277_164_295)])
def test_the_number_of_backward_paths(f: int, paths: int) -> None:
    assert alss.count_paths(f) == paths
    assert alss.count_paths(f, **SCALED) == paths


@pytest.mark.parametrize(("f", "paths"), [(8, 192), (11, 5_178), (18, 18_323_705)])
def test_the_number_of_strictly_asymmetric_backward_paths(f: int, paths: int) -> None:
    assert alss.count_paths(f, strict=True) == paths


@pytest.mark.parametrize(("f", "span"), [(8, 43), (11, 61), (18, 103)])
def test_span_in_source_frames(f: int, span: int) -> None:
    assert alss.span(f) == span


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("f", [8, 11, 18])
def test_forward_steps_are_even_and_backward_steps_are_allowed_ones(f: int, strict: bool) -> None:
    rng = random.Random(f)
    for _ in range(50):
        indices = alss.loop_indices(f, rng=rng, strict=strict)
        assert len(indices) == 2 * f - 1
        assert indices[:f] == [6 * i for i in range(f)]
        assert indices[-1] == 0
        back = [a - b for a, b in itertools.pairwise(indices[f - 1 :])]
        assert set(back) <= {2, 4, 6, 8}
        if strict:
            assert all(indices[f - 1 - i] != indices[f - 1 + i] for i in range(1, f - 1))


def test_every_backward_path_is_equally_likely() -> None:
    rng, draws = random.Random(0), 20_000
    counts = Counter(
        tuple(alss.sample_reverse_steps(4, 2, (1, 2, 3), rng=rng)) for _ in range(draws)
    )
    assert len(counts) == alss.count_paths(4, 2, (1, 2, 3)) == 7
    expected = draws / 7
    assert (
        sum((n - expected) ** 2 / expected for n in counts.values()) < 22.5
    )  # χ² with 6 degrees of freedom, p = 0.001


def test_the_same_seed_draws_the_same_path() -> None:
    paths = [alss.loop_indices(18, rng=random.Random("7/3/0/clip")) for _ in range(2)]
    assert paths[0] == paths[1] != alss.loop_indices(18, rng=random.Random("7/4/0/clip"))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(LoopAnimateError, match="no 7 steps out of \\(7, 8\\) add up to 42"):
        alss.loop_indices(8, steps=(7, 8), rng=random.Random(0))
    with pytest.raises(LoopAnimateError, match="f = 1"):
        alss.count_paths(1)
