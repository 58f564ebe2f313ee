"""Training on natural loops: which frames are read, whose masks, and a run."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from h264 import write_video

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training import alss
from loopanimate_training.config import ClipConfig, DataConfig, RunConfig
from loopanimate_training.data.loops import draw_loop, possible_frames, spread
from loopanimate_training.data.source import FileSource
from loopanimate_training.loop import train

CLIP = ClipConfig(f=5, loops=True, height_px=32, width_px=32)  # 8 frames a round


@pytest.fixture
def numbered(tmp_path: Path) -> DataConfig:
    """A clip of 20 frames, each as bright as its number, with masks that are white from frame 10."""
    folder = tmp_path / "clips"
    folder.mkdir()
    levels = np.arange(20, dtype=np.uint8)
    write_video(folder / "a.mp4", np.stack([np.full((32, 32, 3), 10 * n) for n in levels]))
    masks = [np.full((32, 32, 3), 255 * (n >= 10), np.uint8) for n in levels]
    write_video(folder / "a.mask.mp4", np.stack(masks))
    (folder / "a.txt").write_text("a wheel")
    return DataConfig(source="videos", path=folder, index=tmp_path / "index")


def test_a_round_is_spread_over_the_whole_clip(numbered: DataConfig) -> None:
    loop = draw_loop(CLIP, random.Random(0))
    assert loop == [0, 1, 2, 3, 4, 5, 6, 7, 0] and len(loop) == CLIP.frames
    assert possible_frames(CLIP) == tuple(range(8)) and loop[CLIP.f - 1] == CLIP.turn
    source = FileSource(numbered, CLIP)
    assert source.frame_count(0) == 8
    frames, masks = source.read(0, range(8))
    shown = [round(float(frame.mean()) / 10) for frame in frames]
    assert shown == [0, 2, 5, 7, 10, 12, 15, 17]  # and then 20, which is 0 again
    assert masks is not None and masks.mean((1, 2)).tolist() == [
        0.0,
        1.0,
    ]  # first and turning frame
    _, ends = source.read(0, [0, CLIP.turn])
    assert ends is not None and (ends == masks).all()


def test_the_same_clip_mirrored_is_another_one_for_the_cache(numbered: DataConfig) -> None:
    mirrored = CLIP.model_copy(update={"loops": False, "stride": 2, "reverse_steps": (2,)})
    sources = [FileSource(numbered, clip) for clip in (CLIP, mirrored)]
    assert len({source.key(0) for source in sources}) == 2
    assert possible_frames(mirrored) == (0, 2, 4, 6, 8)


@pytest.mark.parametrize("f", [2, 8, 18])
def test_mirrored_clips_are_drawn_as_before(f: int) -> None:
    clip = ClipConfig(f=f, reverse_steps=(2, 4, 6, 8, 12))
    ours = draw_loop(clip, random.Random(3))
    drawn = alss.loop_indices(f, clip.stride, clip.reverse_steps, rng=random.Random(3))
    assert ours == drawn and set(ours) <= set(possible_frames(clip)) and clip.turn == max(ours)


def test_frames_of_a_round_are_in_order_and_inside() -> None:
    for count in (8, 9, 100, 1000):
        places = spread(range(8), count, 8)
        assert places == sorted(set(places)) and places[0] == 0 and places[-1] < count


def test_loops_that_are_too_short_are_skipped(numbered: DataConfig) -> None:
    with pytest.raises(LoopAnimateError, match="shorter than 24 frames"):
        FileSource(numbered, ClipConfig(f=13, loops=True))


@pytest.mark.parametrize("cached", [False, True])
def test_a_run_trains_on_loops(
    make_run: Callable[..., RunConfig], numbered: DataConfig, tmp_path: Path, cached: bool
) -> None:
    settings = {"data.source": "videos", "data.path": numbered.path, "clip.loops": True}
    settings |= {"clip.f": 5, "clip.mask": "object", "validation.loss_clips": 1}
    cache = {"data.cache": tmp_path / "cache" if cached else None}
    assert train(make_run(steps=2, **settings, **cache)).step == 2
