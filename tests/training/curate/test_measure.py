"""What a clip scores: the parts of it that are read, masks of the data set, and clips that are not measured."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from curated_scenes import disc_mask, scene
from PIL import Image

from loopanimate_training.config import MeasureConfig
from loopanimate_training.curate.measure import look_at, measure
from loopanimate_training.data.readers.rows import Blob, Row
from loopanimate_training.data.video.bad_clip import BadClip

SETTINGS = MeasureConfig(f=4)  # 19 frames


def pictures(folder: Path, frames: np.ndarray) -> Blob:
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:03}.png")
    return Blob(folder)


def test_masks_of_the_data_set_are_used(clips: Path, tmp_path: Path) -> None:
    drawn = np.stack([disc_mask(n, 2.0) for n in range(30)]).astype(np.uint8) * 255
    row = Row("a", Blob(clips / "kept.mp4"), "a ball", pictures(tmp_path / "masks", drawn))
    seen = look_at(row, SETTINGS)
    assert seen.object_by == "given" and seen.frames.shape == (2, 108, 192, 3)
    assert (seen.masks[1] == disc_mask(18, 2.0)).all() and seen.turn == 18
    presence = measure(row, SETTINGS).presence
    assert presence is not None and presence > 0.5


def test_the_method_without_weights_is_named(clips: Path) -> None:
    settings = MeasureConfig(f=4, object="grabcut")
    assert measure(Row("a", Blob(clips / "kept.mp4"), "a ball"), settings).object_by == "grabcut"


def test_folders_of_pictures_score_like_videos(clips: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "frames", scene(30, speed_px=2.0))
    ours, video = (
        measure(Row("a", media, "a ball"), SETTINGS) for media in (folder, Blob(clips / "kept.mp4"))
    )
    assert (ours.frames, ours.width_px, ours.fps) == (30, 192, 0.0) and video.fps == 24.0
    assert ours.motion == pytest.approx(video.motion, abs=0.02)


def test_short_and_long_clips_are_not_measured(clips: Path) -> None:
    row = Row("a", Blob(clips / "kept.mp4"), "a ball")
    for settings in (MeasureConfig(f=8), MeasureConfig(f=4, most_frames=20)):
        scores = measure(row, settings)
        assert scores.frames == 30 and scores.motion is None and scores.hash_first is None


def test_a_part_of_a_video_is_measured_alone(clips: Path) -> None:
    """The cut is at frame 15 of 24 a second."""
    whole = Row("a", Blob(clips / "cuts.mp4"), "a ball")
    part = Row("b", whole.media, "a ball", start_s=15 / 24)
    settings = MeasureConfig(f=3)  # 13 frames
    scores = [measure(row, settings) for row in (whole, part)]
    assert [one.frames for one in scores] == [30, 15]
    assert [(one.largest_change or 0.0) > 0.35 for one in scores] == [True, False]


def test_frames_are_resampled_to_the_rate_of_the_run(clips: Path) -> None:
    scores = measure(Row("a", Blob(clips / "kept.mp4")), MeasureConfig(f=3, stride=2, fps=8))
    assert scores.frames == 10 and scores.fps == 24.0


def test_what_is_no_video_is_a_bad_clip(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for media in (clips / "broken.mp4", tmp_path / "empty"):
        with pytest.raises(BadClip):
            measure(Row("a", Blob(media)), SETTINGS)


def test_large_frames_are_shrunk(tmp_path: Path) -> None:
    frames = np.stack([cv2.resize(frame, (400, 224)) for frame in scene(20)])
    row = Row("a", pictures(tmp_path / "large", frames))
    assert look_at(row, MeasureConfig(f=4, mask_px=200)).frames.shape == (2, 112, 200, 3)
