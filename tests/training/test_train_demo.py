"""The demo's parts: videos of the packaged pictures, and commands that are valid runs."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import pytest

from loopanimate_training import demo
from loopanimate_training.config import resolve


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
