"""Each limit rejects for its own reason, and the sentence names value and limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loopanimate_training.config import LimitsConfig, MeasureConfig
from loopanimate_training.curate.judge import best_part, cuts, faults
from loopanimate_training.curate.measure import Scores, Window

GOOD = Scores(
    frames=200,
    width_px=640,
    height_px=360,
    fps=24.0,
    damaged=False,
    changes=((50, 0.2),),
    largest_change=0.2,
    motion=0.1,
    shake=0.001,
    overlay=0.0,
    object_by="network",
    object_share=0.3,
    object_share_turn=0.3,
    main_part=1.0,
    presence=0.9,
    agreement=0.8,
    object_motion=0.01,
    other_motion=0.001,
    camera_motion=0.0,
    thing="cat",
    hash_first="0" * 16,
    hash_turn="0" * 16,
    loop_frames=0,
)
MEASURED = MeasureConfig()


def reasons(scores: Scores, text: str = "a cat", **limits: Any) -> list[str]:
    found = faults(scores, text, LimitsConfig(**limits), MEASURED, "skip")
    assert all(fault.detail for fault in found)
    return [fault.reason for fault in found]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"frames": 102}, "too short"),
        ({"frames": 1801}, "too long"),
        ({"height_px": 120}, "too small"),
        ({"changes": ((50, 0.5),)}, "cuts"),
        ({"motion": 0.001}, "static"),
        ({"shake": 0.1}, "shaky"),
        ({"overlay": 0.2}, "text or logo"),
        ({"object_share": 1.0}, "no object"),
        ({"object_share_turn": 0.001}, "no object"),
        ({"main_part": 0.3}, "several objects"),
        ({"presence": 0.01}, "object gone"),
        ({"agreement": 0.1}, "another object"),
        ({"object_motion": 0.0}, "object rests"),
        ({"thing": ""}, "caption names no thing"),
        ({"clip_score": 0.1}, "other caption"),
    ],
)
def test_each_limit_has_its_reason(changes: dict[str, Any], reason: str) -> None:
    assert reasons(GOOD) == []
    assert reasons(replace(GOOD, **changes)) == [reason]


def test_clip_decides_instead_of_the_list_of_nouns() -> None:
    assert reasons(replace(GOOD, thing="", clip_score=0.3)) == []


def test_settings_that_allow_more() -> None:
    assert reasons(replace(GOOD, thing=""), caption="any") == []
    assert reasons(replace(GOOD, damaged=True)) == []
    assert reasons(replace(GOOD, damaged=True), damaged="reject") == ["damaged"]
    assert reasons(GOOD, text="") == ["no caption"]


def test_clips_that_were_not_measured_have_only_the_faults_of_their_file() -> None:
    assert reasons(Scores(10, 640, 360, 24.0, False)) == ["too short"]


def test_a_sentence_names_value_and_limit() -> None:
    fault = faults(replace(GOOD, presence=0.05), "a cat", LimitsConfig(), MEASURED, "skip")[0]
    assert "0.05" in fault.detail and "0.15" in fault.detail
    found = replace(GOOD, changes=((3, 0.2), (9, 0.6)))
    assert cuts(found, LimitsConfig()) == [9] and cuts(found, LimitsConfig(cut=0.15)) == [3, 9]


@pytest.mark.parametrize(
    ("good", "part"),
    [
        ("ggggg", (0, 300)),
        ("bggbg", (50, 200)),
        ("gbbgb", (0, 100)),
        ("bbbbb", None),
    ],
)
def test_the_longest_run_of_good_windows_is_the_part(
    good: str, part: tuple[int, int] | None
) -> None:
    scores = {"g": replace(GOOD, frames=100), "b": replace(GOOD, frames=100, presence=0.0)}
    windows = [Window(50 * n, 2.0 * n, 2.0 * n + 4, scores[kind]) for n, kind in enumerate(good)]
    found = best_part(windows, lambda one: (one.presence or 0.0) > 0.15)
    if part is None:
        assert found is None
        return
    assert found is not None and (found.start, found.scores.frames) == (part[0], part[1] - part[0])
    assert found.end_s - found.start_s == 4 + 2.0 * (part[1] - part[0] - 100) / 50


def test_windows_with_a_gap_between_them_are_not_joined() -> None:
    one, other = (Window(at, 0.0, 1.0, replace(GOOD, frames=103)) for at in (0, 400))
    found = best_part([one, other], lambda scores: True)
    assert found is not None and (found.start, found.scores.frames) == (0, 103)
