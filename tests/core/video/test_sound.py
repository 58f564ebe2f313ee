"""Sound under a loop."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.video import read_metadata, read_video, write_video
from loopanimate_core.video.formats import FORMATS
from loopanimate_core.video.sound import ENCODERS, add_sound

RATE_HZ = 48_000


def tone(seconds: float, channels: int = 1) -> torch.Tensor:
    time = torch.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (0.5 * (2 * torch.pi * 440 * time).sin()).expand(channels, -1)


@pytest.mark.parametrize("format", ENCODERS)
def test_sound_repeats_to_the_end_and_frames_stay(tmp_path: Path, format: str) -> None:
    frames, row = torch.rand(12, 32, 48, 3), FORMATS[format]
    path = tmp_path / f"loop{row.suffixes[0]}"
    write_video(frames, path, fps=8, format=format, repeats=1, metadata={"workflow": '{"a": 1}'})
    before, _ = read_video(path)
    add_sound(path, row, tone(0.5, channels=2), RATE_HZ, duration_s=1.5)
    after, fps = read_video(path)
    assert fps == 8 and torch.equal(before, after)
    assert read_metadata(path)["workflow"] == '{"a": 1}'
    with av.open(str(path)) as file:
        heard = [frame.to_ndarray() for frame in file.decode(audio=0)]
        rate_hz = file.streams.audio[0].rate
    samples = np.concatenate(heard, axis=-1)
    per_channel = samples.size / file_channels(samples)
    assert per_channel / rate_hz == pytest.approx(1.5, abs=0.1)
    assert [other.name for other in tmp_path.iterdir()] == [path.name]


def file_channels(samples: np.ndarray) -> int:
    return 2 if samples.shape[0] == 1 else samples.shape[0]  # packed or planar


def test_formats_without_sound_and_odd_tracks_raise_one_sentence(tmp_path: Path) -> None:
    path = write_video(torch.rand(4, 16, 16, 3), tmp_path / "loop.mp4", fps=8)
    content = path.read_bytes()
    for row, samples, message in (
        (FORMATS["webp"], tone(0.1), "webp cannot hold sound; mp4, webm"),
        (FORMATS["mp4"], tone(0.1, channels=6), "one or two channels"),
        (FORMATS["mp4"], tone(0.0), "at least one sample"),
    ):
        with pytest.raises(LoopAnimateError, match=message):
            add_sound(path, row, samples, RATE_HZ, 1.0)
    assert path.read_bytes() == content
