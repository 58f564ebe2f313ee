"""The demo: videos of the packaged pictures, and valid commands."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import av
import numpy as np
import pytest

from loopanimate_core.bundle import bundle_info
from loopanimate_core.errors import LoopAnimateError
from loopanimate_training import demo
from loopanimate_training.config import DataConfig, resolve
from loopanimate_training.data.source import FileSource
from loopanimate_training.run.log import read_log


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
        frames, masks = source.read(clip_id, [0, 12])
        assert masks is not None and 0.1 < masks.mean() < 0.7
        apart = np.abs(frames[1].astype(int) - frames[0]).mean(-1)
        beside = apart[~masks.any(0)].mean()  # soft edges and encoding errors
        assert apart[masks[0]].mean() > max(5.0, 4.0 * beside)  # only the object moves


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
    assert config.save.every_steps < config.steps  # there is a checkpoint before the kill


def test_main_trains_kills_resumes_exports_and_animates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Real processes on smaller frames, with one stage, which is killed and resumed.

    The hand-over between stages is tested in `test_three_stages_hand_over_to_a_bundle_that_animates`.
    """
    work, recipe = tmp_path / "work", (demo.RECIPES / "demo.yaml").read_text()
    for large, small in (("_px: 96", "_px: 32"), ("clips: 3, steps: 12", "clips: 1, steps: 2")):
        assert large in recipe
        recipe = recipe.replace(large, small)
    (tmp_path / "demo.yaml").write_text(recipe)
    monkeypatch.setattr(demo, "RECIPES", tmp_path)
    monkeypatch.setattr(demo, "VERBS", demo.VERBS[:1])
    monkeypatch.setattr(demo, "STEPS", {1: 8})
    monkeypatch.setattr(demo, "KILLED_STAGE", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    demo.main([str(work)])
    said = capfd.readouterr().out
    assert "12 videos in" in said and f"{work / 'stage1/report.html'} is the report" in said
    killed = re.search(r"killed; the same command resumes from step-(\d+)", said)
    assert killed and 5 <= int(killed[1]) <= 8  # a busy machine may see the first checkpoint late
    logged = [row["step"] for row in read_log(work / "stage1/log.jsonl")]
    assert logged == list(range(1, 9))
    made = bundle_info(work / "demo.safetensors")
    assert made.provenance["training"][-1]["stage"] == 1 and made.config.height_px == 32
    with av.open(str(work / "ghost.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) % 34 == 0 and frames[0].shape == (32, 32, 3)


def test_a_training_that_fails_before_the_kill_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LoopAnimateError, match="exit code 3 before its first checkpoint"):
        demo.run_and_kill(["-c", "raise SystemExit(3)"], tmp_path)
    with pytest.raises(LoopAnimateError, match="the last command ended with exit code 3"):
        demo.run(["-c", "raise SystemExit(3)"])
