"""The mini's quality benchmark, end to end with a toy model on a drawn sticker and a part of a photograph."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from closeness import assert_close

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_training.data.photographs.cutouts import CutoutCache
from loopanimate_training.data.stickers.clips import DrawnClip
from loopanimate_training.data.stickers.emoji import EmojiCache
from loopanimate_training.data.stickers.motion import STILL, VERBS, Motion
from loopanimate_training.data.stickers.render import Placement, Scene, place

pytestmark = pytest.mark.numeric

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
ASKED = ("bobbing up and down", "swaying in the wind", STILL)
FRAMES = 15
THERE_AND_BACK = [*range(0, 52, 3), *range(48, 0, -3)]


def benchmark(name: str) -> ModuleType:
    """A module of `benchmarks/`, which import each other as scripts of one folder do."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    return benchmark("mini_quality")


@pytest.fixture(scope="module")
def held_out() -> ModuleType:
    return benchmark("held_out")


def clips_of_one_subject(subject: str = "1", size_px: int = 64) -> list[DrawnClip]:
    """A box with a blue corner on grey."""
    sprite = np.zeros((48, 48, 4), np.uint8)
    sprite[8:40, 10:38] = (200, 60, 40, 255)
    sprite[8:20, 10:22, :3] = (30, 60, 200)
    layer = place(sprite[None], Placement(0, 0, 0.6), size_px, size_px)[0]
    scene = Scene(layer, torch.full((size_px, size_px, 3), 0.85))
    clip = DrawnClip("", Motion(STILL), scene, "box", subject, subject)
    return [replace(clip, caption=f"a box {verb}", motion=Motion(verb)) for verb in ASKED]


@pytest.fixture(scope="module")
def figures(quality: ModuleType, toy_bundle_path: Path) -> Any:
    pipeline = LoopAnimatePipeline.from_bundle(toy_bundle_path)
    clips = {"stickers": clips_of_one_subject(), "photographs": clips_of_one_subject("2")}
    return quality.evaluate(pipeline, clips, frames=FRAMES, renderer_subjects=1, steps=2)


@pytest.fixture(scope="module")
def subject(quality: ModuleType) -> Any:
    clips = clips_of_one_subject()
    return quality.Subject("stickers", 0, clips, clips[0].scene)


def test_every_method_is_run_on_every_prompt(figures: Any) -> None:
    assert figures.skipped == {"stickers": [], "photographs": []}
    for loops in figures.loops.values():
        assert [loop.asked for loop in loops] == [*ASKED, *ASKED]
        assert [loop.group for loop in loops] == ["stickers"] * 3 + ["photographs"] * 3


def test_a_still_picture_only_follows_staying_still(quality: ModuleType, subject: Any) -> None:
    picture = subject.scene.still()[0]
    for clip in subject.clips:
        shown = picture.expand(FRAMES - 1, -1, -1, -1)
        found = quality.measure(shown, subject, clip, FRAMES)
        assert found.read == STILL
        assert found.obeyed == (clip.verb == STILL)
        assert found.motion == found.outside_error == found.mse_picture == 0.0
        assert found.seam_jump is None


def test_the_true_motion_gets_full_scores(quality: ModuleType, subject: Any) -> None:
    for clip in subject.clips:
        found = quality.measure(clip.draw(THERE_AND_BACK)[0], subject, clip, 35)
        assert found.obeyed and not found.added
        assert found.outside_error < 0.01
        assert found.motion_ratio == pytest.approx(0.0 if clip.verb == STILL else 1.0, abs=0.01)
        # there and back in equal steps: the seam is a step like those around it
        assert found.seam_jump is None or found.seam_jump <= 1.05


def test_another_picture_follows_no_prompt(quality: ModuleType, subject: Any) -> None:
    garbled = torch.zeros(FRAMES - 1, 64, 64, 3)
    found = quality.measure(garbled, subject, subject.clips[-1], FRAMES)
    assert found.read == "garbled"
    assert not found.obeyed


def test_what_moves_behind_the_object_counts_as_an_error(quality: ModuleType, subject: Any) -> None:
    clip = subject.clips[-1]
    shown = clip.draw(THERE_AND_BACK)[0]
    shown[1:, :6] += 10.0 / 255.0  # of 64 rows, all but the object's are outside
    found = quality.measure(shown, subject, clip, 35)
    assert 0.5 < found.outside_error < 3.0


def test_the_way_there_of_a_shorter_loop_is_read(quality: ModuleType, subject: Any) -> None:
    frames = subject.clips[0].draw(THERE_AND_BACK[:8])[0]
    assert quality.read_loop(frames, subject.scene, FRAMES).verb == ASKED[0]


@pytest.mark.parametrize("baseline", ["ping_pong", "crossfade"])
def test_baselines_start_from_the_picture_and_close(
    quality: ModuleType, subject: Any, baseline: str
) -> None:
    picture = subject.scene.still()[0]
    loop = getattr(quality, baseline)(picture, 34, np.random.default_rng(1))
    steps = (loop.roll(-1, 0) - loop).abs().mean((1, 2, 3))
    assert_close(loop[0], picture)
    assert loop.shape == (34, 64, 64, 3)
    assert 0 < steps[-1] <= 1.5 * steps[:-1].max()  # the seam is like other steps


def test_ping_pong_runs_backwards(quality: ModuleType, subject: Any) -> None:
    loop = quality.ping_pong(subject.scene.still()[0], 14, np.random.default_rng(1))
    assert_close(loop[1:], loop[1:].flip(0))


def test_table_and_json_hold_every_value(figures: Any) -> None:
    table = figures.table()
    for target in benchmark("mini_figures").targets(figures.verbs):
        assert target.title in table
    for verb in ASKED:
        assert table.count(f" {verb}") == 3  # its row, and a confusion table a group
    values = json.loads(json.dumps(figures.to_dict()))
    assert set(values["summary"]) == set(figures.loops)
    still = values["summary"]["still"]["photographs"]
    assert still["  staying still"] == 1.0
    assert still["obeyed, mean over verbs"] == pytest.approx(1 / 3)
    assert still["other verb, other reading (same seed)"] == 0.0
    assert len(values["loops"]["mini"]) == 2 * len(ASKED)


def test_the_sheet_holds_a_column_a_group(figures: Any, subject: Any, tmp_path: Path) -> None:
    sheet = benchmark("mini_figures").Sheet()
    for group in ("stickers", "photographs"):
        for clip, own in zip(subject.clips, figures.loops_of("mini", group), strict=True):
            sheet.add(clip, own, clip.draw(THERE_AND_BACK)[0])
    sheet.save(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_held_out_clips_are_every_verb_for_different_subjects(
    held_out: ModuleType, sticker_cache: EmojiCache, cutout_cache: CutoutCache
) -> None:
    wanted = {"stickers": 1, "on photos": 1, "photographs": 2}
    clips = held_out.held_out_clips(sticker_cache, cutout_cache, wanted, 32, 32)
    kept = {cutout.photograph for cutout in cutout_cache.select(True, 32, 32)}
    families: list[str] = []
    for group, own in clips.items():
        subjects = list(dict.fromkeys(clip.subject for clip in own))
        assert len(subjects) == wanted[group]
        assert [clip.verb for clip in own] == list(VERBS) * len(subjects)
        assert all(clip.mask == "true" and clip.verb in clip.caption for clip in own)
        for name in subjects:
            stills = [clip.scene.still()[0] for clip in own if clip.subject == name]
            assert all(torch.equal(still, stills[0]) for still in stills)
        if group != "photographs":
            families += dict.fromkeys(clip.family for clip in own)
    assert len(families) == len(set(families)) == 2
    assert {clip.family for clip in clips["photographs"]} <= kept


def test_asking_for_more_subjects_than_there_are_is_an_error(
    held_out: ModuleType, sticker_cache: EmojiCache, cutout_cache: CutoutCache
) -> None:
    with pytest.raises(LoopAnimateError, match="held-out stickers"):
        held_out.held_out_clips(sticker_cache, None, {"stickers": 99}, 32, 32)
    with pytest.raises(LoopAnimateError, match="cut-outs of 16 x 16 pixels"):
        held_out.held_out_clips(sticker_cache, cutout_cache, {"photographs": 1}, 16, 16)
    with pytest.raises(LoopAnimateError, match="cut-outs"):
        held_out.held_out_clips(sticker_cache, None, {"on photos": 1}, 32, 32)


def test_the_reader_s_own_table_reads_drawn_clips(
    sticker_cache: EmojiCache,
    cutout_cache: CutoutCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in sticker_cache.folder.iterdir():
        (data / path.name).symlink_to(path)
    (data / "cutouts").symlink_to(cutout_cache.folder)
    options = ["--data", str(data), "--subjects", "1", "--size", "32", "32", "--verbs", *ASKED[::2]]
    monkeypatch.setattr(sys, "argv", ["motion_reader.py", *options])
    benchmark("motion_reader").main()
    assert "6 clips read, 100.0% right" in capsys.readouterr().out
