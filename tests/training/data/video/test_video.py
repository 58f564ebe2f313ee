"""Decoding constant-rate, variable-rate, rotated, damaged and embedded videos."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from loopanimate_training.data.readers.rows import Blob
from loopanimate_training.data.video.bad_clip import BadClip
from loopanimate_training.data.video.facts import VideoFacts, resampled_counts, source_frames
from loopanimate_training.data.video.frames import read_counted, read_video
from loopanimate_training.data.video.scan import scan_video

Films = Any  # the fixture of conftest.py


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *map(str, arguments)]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def film(films: Films, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films.write(tmp_path_factory.mktemp("film") / "film.mp4", 110)


def test_large_frames_are_shrunk_while_decoding(films: Films, film: Path) -> None:
    facts = scan_video(Blob(film))
    for shown, longest_px in (((8, 32), 32), ((16, 64), 64), ((16, 64), 500)):
        frames = read_video(Blob(film), [0, 60, 61], facts, longest_px=longest_px)
        assert frames.shape == (3, *shown, 3)
        large = frames.repeat(64 // shown[1], axis=1).repeat(64 // shown[1], axis=2)
        assert films.numbers(large) == [0, 60, 61]


def test_decodes_the_requested_frames(films: Films, film: Path) -> None:
    facts = scan_video(Blob(film))
    assert (facts.frames, facts.width_px, facts.height_px, facts.times) == (110, 64, 16, ())
    assert facts.fps == pytest.approx(24) and not facts.damaged
    for indices in ([0], [60, 61, 75, 109], [0, 0, 3, 3], [108], list(range(110))):
        assert films.numbers(read_video(Blob(film), indices, facts)) == indices
    assert films.numbers(read_counted(Blob(film), [3, 50], "rgb24")) == [3, 50]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.avi", "libx264 -bf 3"),  # no timestamps
        ("a.mpg", "mpeg2video -q:v 2"),  # seeking shifts the timestamps
        ("a.ts", "libx264 -bf 3"),  # no index for seeking
        ("a.mp4", "libx264 -x264-params open-gop=1:keyint=20:bframes=3"),
        ("a.webm", "libvpx -b:v 2M"),
        ("a.gif", "gif"),
    ],
)
def test_other_containers(films: Films, film: Path, tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    ffmpeg("-i", film, "-c:v", *codec.split(), path)
    facts = scan_video(Blob(path))
    assert facts.frames == 110 and facts.fps == pytest.approx(24, rel=1e-3)
    for indices in ([0, 3], [50], [60, 75, 109], [100]):
        assert films.numbers(read_video(Blob(path), indices, facts)) == indices


def test_false_key_frames_do_not_give_wrong_frames(
    films: Films, film: Path, tmp_path: Path
) -> None:
    """A file whose table of key frames lists frames that depend on others, as in some real files."""
    data = bytearray(film.read_bytes())
    table = data.index(b"stss") + 8
    count = int.from_bytes(data[table : table + 4], "big")
    for place in range(table + 8, table + 4 + 4 * count, 4):  # all except the first
        number = int.from_bytes(data[place : place + 4], "big")
        data[place : place + 4] = (number + 5).to_bytes(4, "big")
    path = tmp_path / "false.mp4"
    path.write_bytes(data)
    facts = scan_video(Blob(path))
    assert facts.frames == 110
    for indices in ([66], [70, 71], [100, 109]):
        assert films.numbers(read_video(Blob(path), indices, facts)) == indices
    part = scan_video(Blob(path), 2.9, 3.5)
    assert films.numbers(read_video(Blob(path), [0, 1], part)) == [70, 71]


def test_a_part_needs_timestamps(film: Path, tmp_path: Path) -> None:
    ffmpeg("-i", film, "-c:v", "libx264", "-bf", 3, tmp_path / "a.avi")
    with pytest.raises(BadClip, match="has no frame times"):
        scan_video(Blob(tmp_path / "a.avi"), 1.0, 2.0)


def test_a_part_of_a_video(films: Films, film: Path) -> None:
    facts = scan_video(Blob(film), 1.0, 3.5)
    assert facts.frames == 60
    assert films.numbers(read_video(Blob(film), [0, 1, 59], facts)) == [24, 25, 83]
    short = scan_video(Blob(film), None, 0.5)
    assert films.numbers(read_video(Blob(film), range(short.frames), short)) == list(range(12))
    with pytest.raises(BadClip, match="has no video frames between"):
        scan_video(Blob(film), 60.0, 70.0)


def test_variable_frame_rates_are_resampled_to_the_nearest_frame(
    films: Films, tmp_path: Path
) -> None:
    times = [0, 40, 80, 120, 160, 410, 440, 480, 890, 1000]
    path = films.write_uneven(tmp_path / "phone.mkv", times)
    facts = scan_video(Blob(path))
    assert facts.frames == 10 and len(facts.times) == 10
    assert resampled_counts(facts.frames, facts.fps, 25.0) == 26
    chosen = source_frames(facts, range(26), 25.0).tolist()
    assert chosen == [0, 1, 2, 3, 4, 4, 4, 4, 5, 5, 5, 6, 7, 7, 7, 7, 7, 7, 8, 8, 8, 8, 8, 8, 9, 9]
    assert films.numbers(read_video(Blob(path), chosen, facts)) == chosen
    own = source_frames(facts, range(10), None).tolist()  # at 9 frames per second
    assert own[0] == 0 and own[-1] == 9 and own == sorted(own)


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=40),
    st.floats(0.5, 60),
    st.integers(0, 10**9),
)
def test_resampling_takes_the_nearest_frame(gaps: list[int], fps: float, first: int) -> None:
    times = tuple(first + int(t) for t in np.cumsum([0, *gaps]))
    step = (times[-1] - times[0]) / (len(times) - 1)
    facts = VideoFacts(len(times), 8, 8, 0, 0.001, times[0], step, times)
    count = resampled_counts(facts.frames, facts.fps, fps).item()
    chosen = source_frames(facts, range(count), fps)
    seconds = (np.array(times) - first) * 0.001
    assert (count - 1) / fps <= seconds[-1] + 1e-4 < count / fps + 2e-4
    for number, frame in enumerate(chosen):
        distances = abs(seconds - number / fps)
        assert distances[frame] <= distances.min() + 1e-6
    assert (np.diff(chosen) >= 0).all()


@given(st.integers(1, 500), st.floats(1, 120))
def test_even_clips_at_their_own_rate_stay_as_they_are(frames: int, fps: float) -> None:
    facts = VideoFacts(frames, 8, 8, 0, 1e-4, 77, 1e4 / fps)
    assert source_frames(facts, range(frames), None).tolist() == list(range(frames))
    assert resampled_counts(frames, facts.fps, facts.fps) == frames
    assert source_frames(facts, range(frames), facts.fps).tolist() == list(range(frames))


def test_clips_without_times_keep_their_frames() -> None:
    counts = resampled_counts([49, 49, 0, 7], [24.0, 0.0, 24.0, 0.0], 12.0)
    assert counts.tolist() == [25, 49, 0, 7]
    assert resampled_counts([49, 7], [24.0, 0.0], None).tolist() == [49, 7]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_videos_are_decoded_upright(film: Path, tmp_path: Path, degrees: int) -> None:
    path = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", degrees, "-i", film, "-c", "copy", path)
    facts = scan_video(Blob(path))
    assert (facts.width_px, facts.height_px) == ((64, 16) if degrees == 180 else (16, 64))
    ours = read_video(Blob(path), [0, 70], facts)
    # ffmpeg rotates frames upright by default
    ffmpeg("-i", path, "-vf", "select=eq(n\\,70)", "-frames:v", 1, tmp_path / "upright.png")
    theirs = np.asarray(Image.open(tmp_path / "upright.png").convert("RGB"))
    assert ours[1].shape == theirs.shape and abs(ours[1].astype(int) - theirs).mean() < 6


def test_a_member_of_a_tar_decodes_like_a_file(films: Films, film: Path, tmp_path: Path) -> None:
    data = film.read_bytes()
    (tmp_path / "a.tar").write_bytes(b"x" * 1000 + data + b"y" * 5000)
    member = Blob(tmp_path / "a.tar", 1000, len(data))
    facts = scan_video(member)
    assert facts == scan_video(Blob(film))
    assert films.numbers(read_video(member, [5, 90], facts)) == [5, 90]


def _cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def test_a_truncated_film_keeps_its_good_beginning(
    films: Films, film: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cut.mp4"
    ffmpeg("-i", film, "-c", "copy", "-movflags", "+faststart", path)
    _cut(path, 0.8)  # the header still says 110 frames
    facts = scan_video(Blob(path))
    assert 10 < facts.frames < 100 and facts.damaged
    last = facts.frames - 1
    assert films.numbers(read_video(Blob(path), [0, last], facts)) == [0, last]
    with pytest.raises(BadClip, match="lacks frame"):
        read_video(Blob(path), [0, 109], facts)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 400):
        data[place] ^= 0xA5
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["empty", "page", "headless", "sound", "noise", "folder"])
def test_a_file_that_is_not_a_video_is_a_bad_clip(film: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bad.mp4"
    contents: dict[str, bytes] = {
        "empty": b"",
        "page": b"<html>404</html>",
        "headless": film.read_bytes()[:-3000],
        "noise": np.random.default_rng(0).bytes(20_000),
    }
    if damage == "sound":
        ffmpeg("-f", "lavfi", "-i", "sine=duration=1", path)
    elif damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(contents[damage])
    with pytest.raises(BadClip, match=r"bad\.mp4"):
        scan_video(Blob(path))


def test_flipped_bits_end_the_good_part(films: Films, film: Path, tmp_path: Path) -> None:
    path = tmp_path / "flipped.mkv"
    ffmpeg("-i", film, "-c", "copy", path)
    _flip(path)
    facts = scan_video(Blob(path))
    frames: Sequence[int] = range(0, facts.frames, 5)
    assert facts.frames < 110 and facts.damaged
    assert films.numbers(read_video(Blob(path), frames, facts)) == list(frames)
