"""Several data sets as one: every weight is kept exactly, and resumed or shared runs see the same clips."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from loopanimate_core.bundle import read_bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.commands.cache import fill_cache
from loopanimate_training.commands.dry_run import describe_run
from loopanimate_training.config import RunConfig, relocated, require_same_run, stored_settings
from loopanimate_training.data.cache_filling import window_starts
from loopanimate_training.data.loader import ClipLoader
from loopanimate_training.data.mixture import MixedSource, SourceInTurns, Turns
from loopanimate_training.data.opening import describe_mix, open_validation_source
from loopanimate_training.data.survey import survey
from loopanimate_training.loop import train
from loopanimate_training.setup import make_loader
from loopanimate_training.storage.checkpoint import load_latest
from loopanimate_training.testing import toy_run, with_settings

pytestmark = pytest.mark.numeric

Films = Any  # the fixture of ../conftest.py
MakeRun = Callable[..., RunConfig]
SHARES = [(3, 1), (1, 1), (999, 1), (5, 3, 2), (1,)]


@pytest.fixture
def mixed_run(films: Films, tmp_path: Path) -> Callable[..., RunConfig]:
    """A toy run over three folders of pictures (weight 1), and over five films (weight 3) mixed in."""
    for number in range(5):
        films.write(tmp_path / f"films/{number}.mp4", 24, first=10 * number)
        (tmp_path / f"films/{number}.txt").write_text(f"film {number}")
    mix = json.dumps([{"path": str(tmp_path / "films"), "weight": 3}])
    return lambda **settings: toy_run(tmp_path, **{"data.mix": mix, **settings})


def loader_of(config: RunConfig, rank: int = 0, world: int = 1) -> ClipLoader:
    loader = make_loader(config, read_bundle(config.model.start), Accelerator(cpu=True))
    loader.rank, loader.world = rank, world
    return loader


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("unit", [1, 4])
def test_every_data_set_has_exactly_its_share_of_each_cycle(
    shares: tuple[int, ...], unit: int
) -> None:
    turns, cycle = Turns(3, shares, unit), sum(shares)
    for first in (0, 7 * cycle * unit):
        parts = [turns(first + unit * turn)[0] for turn in range(cycle)]
        assert Counter(parts) == dict(enumerate(shares))


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("unit", [1, 4])
def test_a_data_set_counts_its_own_samples_without_a_gap(
    shares: tuple[int, ...], unit: int
) -> None:
    turns = Turns(3, shares, unit)
    seen: Counter[int] = Counter()
    for number in range(3 * sum(shares) * unit):
        part, own = turns(number)
        assert own == seen[part]
        seen[part] += 1
        if number % unit:
            assert part == turns(number - 1)[0]


def test_turns_are_mixed_and_depend_on_the_seed_alone() -> None:
    shares = (30, 20)
    ours, again, theirs = ([Turns(seed, shares, 1)(n) for n in range(100)] for seed in (0, 0, 1))
    assert ours == again != theirs and ours[:50] != ours[50:]
    assert sum(a[0] != b[0] for a, b in pairwise(ours)) > 20


def test_clips_are_shown_by_weight_and_each_once_before_any_again(mixed_run: MakeRun) -> None:
    loader = loader_of(mixed_run())
    source = loader.cache.source
    assert isinstance(source, MixedSource) and [len(part) for part in source.parts] == [3, 5]
    shown = [loader.clip_id(number) for number in range(4 * 15)]
    pictures = [one for one in shown if one in source.ids_of(0)]
    films = [one - 3 for one in shown if one in source.ids_of(1)]
    assert (len(pictures), len(films)) == (15, 45)
    for ids, count in ((pictures, 3), (films, 5)):
        for i in range(0, len(ids), count):
            assert sorted(ids[i : i + count]) == list(range(count))
    assert {source.caption(one)[:6] for one in (0, 7)} == {"a squa", "film 4"}


def test_substitutes_are_from_the_same_data_set(mixed_run: MakeRun) -> None:
    loader = loader_of(mixed_run())
    for number in range(20):
        same = {loader.clip_id(number, attempt) < 3 for attempt in range(5)}
        assert len(same) == 1


def test_processes_share_the_clips_of_a_step(mixed_run: MakeRun) -> None:
    config = mixed_run(**{"batch.size": 4})
    whole = loader_of(config).batch(3, 0)
    split = [loader_of(config, rank, 2).batch(3, 0) for rank in range(2)]
    for name, column in vars(whole).items():
        assert torch.equal(column, torch.cat([getattr(part, name) for part in split]))


def test_a_step_of_several_shapes_is_of_one_data_set(mixed_run: MakeRun) -> None:
    config = mixed_run(
        **{"clip.shapes": "[[32, 32], [64, 16]]", "batch.size": 2, "batch.accumulate": 2}
    )
    loader = loader_of(config)
    for step in range(12):
        parts = {loader.clip_id(4 * step + i) < 3 for i in range(4)}
        assert len(parts) == 1 and len({loader._order.shape(4 * step + i) for i in range(4)}) == 1


def test_a_resumed_run_equals_one_that_was_not_stopped(mixed_run: MakeRun, tmp_path: Path) -> None:
    whole = mixed_run(out=tmp_path / "whole")
    train(whole)
    train(mixed_run(steps=3))
    train(mixed_run())
    a, b = load_latest(whole.out), load_latest(mixed_run().out)
    assert a is not None and b is not None and a.step == b.step == 6
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_another_weight_is_another_run(mixed_run: MakeRun, tmp_path: Path) -> None:
    config = mixed_run()
    stored = stored_settings(config)
    require_same_run(stored, config)
    other = with_settings(config, data={"mix": [{"path": str(tmp_path / "films"), "weight": 2}]})
    with pytest.raises(LoopAnimateError, match=r"data\.mix\.0\.weight = 3\.0, not 2\.0"):
        require_same_run(stored, other)


def test_a_moved_run_finds_the_data_sets_that_moved_with_it(
    mixed_run: MakeRun, tmp_path: Path
) -> None:
    stored = stored_settings(mixed_run())
    (tmp_path / "elsewhere/films").mkdir(parents=True)
    moved = relocated(stored, tmp_path / "elsewhere/run")
    assert moved["data"]["mix"][0]["path"] == str(tmp_path / "elsewhere/films")


def test_validation_takes_the_data_sets_in_turns(mixed_run: MakeRun) -> None:
    config = mixed_run()
    training = loader_of(config).cache.source
    validation = open_validation_source(config.data, config.clip, training)
    assert isinstance(validation, SourceInTurns) and len(validation) == len(training)
    captions = [validation.caption(clip_id) for clip_id in range(8)]
    assert [caption[0] for caption in captions] == list("afafafff")
    assert sorted(captions) == sorted(training.caption(clip_id) for clip_id in range(8))
    held_out = config.data.model_copy(update={"held_out_share": 0.5})
    config = config.model_copy(update={"data": held_out})
    training = loader_of(config).cache.source
    kept = open_validation_source(config.data, config.clip, training)
    both = [{s.key(i) for i in range(len(s))} for s in (training, kept)]
    assert len(both[0] | both[1]) == 8 and not both[0] & both[1]


def test_the_cache_holds_all_data_sets(mixed_run: MakeRun) -> None:
    filled = fill_cache(mixed_run())
    cache = loader_of(mixed_run()).cache
    windows = sum(len(window_starts(cache, clip_id)) for clip_id in range(8))
    assert (filled.windows, filled.bad_clips) == (windows, 0)


def test_data_sets_are_named_with_their_shares(mixed_run: MakeRun, tmp_path: Path) -> None:
    config = mixed_run(steps=8)
    lines = describe_mix(config, loader_of(config).cache.source)
    assert lines == [
        f"25.0% of the samples from {tmp_path / 'frames'}: 3 clips, each shown 1.33 times",
        f"75.0% of the samples from {tmp_path / 'films'}: 5 clips, each shown 2.4 times",
    ]
    assert f"25.0% {tmp_path / 'frames'}, 75.0% {tmp_path / 'films'}" in describe_run(config)
    text = survey({"1": config}, tmp_path / "skipped.jsonl")
    assert f"{tmp_path / 'films'}: folder of videos, 5 clips" in text
    assert "75.0% of the samples of stage 1, each clip 2.4 times" in text
    assert (tmp_path / "skipped.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("weights", "shares"),
    [((1, 3), (1, 3)), ((0.5, 0.25), (2, 1)), ((1, 1000), (1, 999)), ((3.14159, 1), (759, 241))],
)
def test_shares_are_whole_numbers(
    mixed_run: MakeRun, weights: tuple[float, float], shares: tuple[int, int]
) -> None:
    mix = json.dumps([{"path": "films", "weight": weights[1]}])
    config = mixed_run(**{"data.weight": weights[0], "data.mix": mix})
    assert config.data.shares == shares
    with pytest.raises(LoopAnimateError, match="weight: Input should be greater than"):
        mixed_run(**{"data.weight": 0})
