"""Seed Hunt and Interpolate Loop with real frames; what samples is tested in tests/comfy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.labels import GAP_PX, LINE_PX, labelled_sheet, small_clip


def test_a_loop_gets_more_frames_and_the_same_length(nodes: Any, loop: torch.Tensor) -> None:
    frames, fps = nodes["InterpolateLoop"].execute(loop, 8.0, 3, "motion").result
    assert len(frames) / fps == pytest.approx(len(loop) / 8.0)
    assert frames[::3].equal(loop)


def test_alpha_is_dropped(nodes: Any, loop: torch.Tensor) -> None:
    see_through = torch.cat([loop, loop[..., :1]], dim=-1)
    frames, _ = nodes["InterpolateLoop"].execute(see_through, 8.0, 2, "blend").result
    assert frames.shape[-1] == 3


def test_the_progress_bar_reaches_its_end(
    nodes: Any, loop: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.utils

    told: list[tuple[int, int]] = []
    monkeypatch.setattr(comfy.utils, "hook", lambda done, total: told.append((done, total)))
    nodes["InterpolateLoop"].execute(loop[:4], 8.0, 2, "blend")
    assert told[-1] == (8, 8) and [done for done, _ in told] == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"count": 1}, "count must be between 2 and 16, got 1"),
        ({"pick": 7}, "pick must be between 0 and 6, the drafts, got 7"),
        ({"first_seed": 2**64 - 3}, "first_seed must be at most"),
    ],
)
def test_seed_hunt_refuses_before_it_samples(
    nodes: Any, changes: dict[str, int], sentence: str
) -> None:
    settings = {"first_seed": 0, "count": 6, "pick": 0, "steps": 0, "cfg": 0.0, **changes}
    sources = dict.fromkeys(("model", "positive", "negative", "latent", "vae"))
    with pytest.raises(LoopAnimateError, match=sentence):
        nodes["SeedHunt"].execute(**sources, **settings)


def test_drafts_belong_to_the_objects_they_were_made_of(nodes: Any) -> None:
    import sys

    hunt = sys.modules[nodes["SeedHunt"].__module__]

    class Model:
        pass

    model, prompt = Model(), [["text", {}]]
    remembered = hunt.Remembered(2)
    remembered.keep([model, prompt], (1, 6), ["drafts"])
    assert remembered.find([model, prompt], (1, 6)) == ["drafts"]
    assert remembered.find([model, prompt], (2, 6)) is None
    assert remembered.find([model, [["text", {}]]], (1, 6)) is None
    del model  # is not kept in memory for the sake of its drafts
    assert remembered.find([None, prompt], (1, 6)) == ["drafts"]
    for seed in (2, 3):
        remembered.keep([prompt], seed, [seed])
    assert remembered.find([None, prompt], (1, 6)) is None


@pytest.mark.parametrize("side", [40, 96, 600])
def test_drafts_are_shown_at_a_size_that_can_be_seen(side: int) -> None:
    clip = small_clip(torch.rand(2, side, side // 2, 3))
    assert clip.dtype == torch.uint8 and 160 <= max(clip.shape[1:3]) <= 256


def test_the_sheet_plays_all_drafts_and_marks_the_chosen_one() -> None:
    clips = [
        torch.full((3, 160, 120, 3), grey, dtype=torch.uint8) for grey in (40, 80, 120, 160, 200)
    ]
    clips[4][1] = 0
    plain, marked = (labelled_sheet(clips, list("abcde"), which) for which in (None, 4))
    assert plain.shape[0] == 3 and plain.min() >= 0 and plain.max() <= 1
    assert not plain[0].equal(plain[1])
    changed = (plain != marked).any(-1)[0].nonzero()
    assert changed.amin(0)[0] >= GAP_PX + 160 + LINE_PX, "only the last row, where the fifth is"


def test_the_folders_that_the_page_may_list(nodes: Any, folder_paths: Any) -> None:
    import sys

    pictures_of = sys.modules[nodes["LoadPictureFromFolder"].__module__].pictures_of
    top = Path(folder_paths.get_input_directory())
    (top / "mine").mkdir(parents=True)
    for name in ("b10.png", "b9.png", "notes.txt"):
        (top / "mine" / name).write_bytes(b"")
    assert [path.name for path in pictures_of("input/mine")] == ["b9.png", "b10.png"]
    for outside in ("input/../..", "/etc", "../.."):
        with pytest.raises(LoopAnimateError):
            pictures_of(outside)
