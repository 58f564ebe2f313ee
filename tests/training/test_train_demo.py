"""The demo's parts: videos of the packaged pictures, and commands that are valid runs."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest

from loopanimate_training import demo
from loopanimate_training.config import DataConfig, resolve
from loopanimate_training.sources import FileSource


def test_videos_of_the_packaged_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "VERBS", demo.VERBS[:1])
    clips = demo.write_clips(tmp_path)
    assert len(clips) == len(list(demo.PICTURES.glob("*.png"))) >= 6
    with av.open(str(clips[0])) as video:
        assert sum(1 for _ in video.decode(video=0)) == demo.SPAN_FRAMES
    assert clips[0].with_suffix(".txt").read_text() == "a cactus bobbing up and down\n"
    changed = clips[0].stat().st_mtime_ns
    demo.write_clips(tmp_path)
    assert clips[0].stat().st_mtime_ns == changed


def test_the_packaged_animations_move_and_have_masks(tmp_path: Path) -> None:
    names = [path.name for path in demo.copy_clips(tmp_path)]
    assert len(names) == 6
    data = DataConfig(source="videos", path=tmp_path, index=tmp_path / "index")
    clip = resolve(3, demo.RECIPES / "demo.yaml", ["out=x", "model.start=x", "data.path=x"]).clip
    source = FileSource(data, clip)
    assert len(source) == 6 and source.caption(0) == "a black cat walking"
    for clip_id in range(6):
        frames, masks = source.read(clip_id, [0, 12, clip.span_frames - 1])
        assert masks is not None and 0.1 < masks.mean() < 0.7
        apart = np.abs(frames[1].astype(int) - frames[0]).mean(-1)
        beside = apart[~masks[:2].any(0)].mean()  # soft edges and the encoder
        assert apart[masks[0]].mean() > max(5.0, 4.0 * beside)  # it is the object that moves


def test_the_subject_is_cut_out() -> None:
    sprite, background = demo.cut_out(demo.PICTURES / "ghost.png")
    share = (sprite[..., 3] > 127).mean()
    assert 0.1 < share < 0.8 and sprite[64, 64, 3] > 127 and sprite[1, 1, 3] < 127
    assert background.shape == (demo.SIZE_PX, demo.SIZE_PX, 3)


@pytest.mark.parametrize("stage", demo.STEPS)
def test_commands_are_valid_runs(stage: int, tmp_path: Path) -> None:
    words = demo.train_command(tmp_path, stage)
    overrides = [word for before, word in itertools.pairwise(words) if before == "--set"]
    config = resolve(
        words[words.index("--stage") + 1], Path(words[words.index("--config") + 1]), overrides
    )
    assert config.stage == stage and config.clip.span_frames <= demo.SPAN_FRAMES
    assert config.save.every_steps < config.steps  # there is a checkpoint to be killed after
