"""Writing loops: seam, timing, quality, atomic writes and invalid arguments."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from toy_frames import ALL_FORMATS, HEIGHT, TOLERANCE, WIDTH, error_of, make_frames, place

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.video import animation, ffmpeg, read_video, write, write_video
from loopanimate_core.video.formats import FORMATS


@pytest.mark.parametrize("name", ["mp4", "webm", "webm-av1"])
def test_odd_sides_are_padded_by_their_edge(tmp_path: Path, name: str) -> None:
    frames = make_frames(4, 71, 95)
    found, _ = read_video(write_video(frames, place(tmp_path, name), fps=24, format=name))
    assert found.shape[1:3] == (72, 96)
    assert error_of(found[:4, :71, :95], frames) < TOLERANCE[name]
    assert error_of(found[:4, 71, :95], frames[:, 70]) < 4
    assert error_of(found[:4, :71, 95], frames[:, :, 94]) < 4


def test_half_precision_with_gradients_is_accepted(tmp_path: Path) -> None:
    frames = make_frames(3).bfloat16().requires_grad_()
    found, _ = read_video(write_video(frames, tmp_path / "a.mkv", fps=8))
    assert error_of(found, frames.detach().float()) < 0.01


def test_values_outside_the_range_are_clipped(tmp_path: Path) -> None:
    frames = torch.cat([torch.full((1, 8, 8, 3), -0.5), torch.full((1, 8, 8, 3), 1.5)])
    found, _ = read_video(write_video(frames, tmp_path / "a.apng", fps=8))
    assert torch.equal(found, frames.clamp(0, 1))


def seam_ratio(frames: torch.Tensor) -> float:
    steps = (frames.roll(-1, 0) - frames).abs().mean((1, 2, 3))
    return float(steps[-1] / steps[:-1].median())


@pytest.mark.parametrize("name", ALL_FORMATS)
def test_seam_stays_closed_at_the_default(tmp_path: Path, name: str) -> None:
    """A moving ball over still grain, as in the benchmark: the seam is no larger than 1.5 steps."""
    grain = 0.05 * torch.randn(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    frames = (make_frames(24) + grain).clamp(0, 1)
    assert seam_ratio(frames) == pytest.approx(1, abs=0.05)
    found, _ = read_video(write_video(frames, place(tmp_path, name), fps=25, format=name))
    assert 0.6 < seam_ratio(found) < 1.5


def test_webp_has_no_trail_behind_motion_over_flat_colours(tmp_path: Path) -> None:
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    angles = [2 * math.pi * index / 16 for index in range(16)]
    discs = [
        (18 - (x - 48 - 24 * math.cos(a)).hypot(y - 48 - 24 * math.sin(a))).clamp(0, 1)
        for a in angles
    ]
    frames = 0.3 + torch.stack(discs)[..., None] * torch.tensor([0.6, 0.3, -0.1])
    decoded, _ = read_video(write_video(frames, tmp_path / "a.webp", fps=8))
    at_rest = (frames - frames.roll(1, 0)).abs().amax(-1) < 1e-4
    assert float((decoded - frames).abs().amax(-1)[at_rest].max()) < 4 / 255


def test_mp4_repeats_to_ten_seconds_and_others_do_not(tmp_path: Path) -> None:
    frames = make_frames(17)
    assert len(read_video(write_video(frames, tmp_path / "a.mp4", fps=8))[0]) == 17 * 5  # 10.6 s
    assert len(read_video(write_video(frames, tmp_path / "b.mp4", fps=8, repeats=2))[0]) == 34
    assert len(read_video(write_video(frames, tmp_path / "a.webm", fps=8))[0]) == 17
    found, _ = read_video(write_video(frames, tmp_path / "a.gif", fps=10, repeats=2))
    assert len(found) == 34


@pytest.mark.parametrize("fps", [8.0, 24000 / 1001, 24.0, 59.94])
def test_mp4_clock_is_exact(tmp_path: Path, fps: float) -> None:
    """No audio, one key frame, no B-frame delay, colours tagged, and P frames last exactly P / fps."""
    av = pytest.importorskip("av", reason="PyAV inspects the container independently")
    path = write_video(make_frames(17), tmp_path / "a.mp4", fps=fps, repeats=2)
    with av.open(str(path)) as container:
        (stream,) = container.streams
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert [packet.pts for packet in packets] == [packet.dts for packet in packets]
        assert packets[0].pts == 0
        assert [packet.is_keyframe for packet in packets] == [True] + [False] * 33
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-6)
        assert float(stream.duration * stream.time_base) == pytest.approx(34 / fps, rel=1e-6)
        context = stream.codec_context
        assert (context.color_range, context.colorspace, context.color_primaries) == (1, 1, 1)
    assert movie_duration_s(path) == pytest.approx(34 / fps, abs=1e-9 + 1e-6 / fps)
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")  # faststart


def movie_duration_s(path: Path) -> float:
    """The duration in the movie header, at which players restart."""
    data = path.read_bytes()
    at = data.index(b"mvhd") + 4
    version = data[at]
    fields = data[at + (20 if version else 12) :]
    width = 8 if version else 4
    return int.from_bytes(fields[4 : 4 + width], "big") / int.from_bytes(fields[:4], "big")


def test_gif_plays_the_nearest_fps_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="24 fps play at 25"):
        path = write_video(make_frames(), tmp_path / "a.gif", fps=24)
    assert read_video(path)[1] == 25
    with pytest.warns(UserWarning, match="120 fps play at 50"):
        write_video(make_frames(), path, fps=120)
    assert read_video(path)[1] == 50


@pytest.mark.parametrize("name", ["webp", "avif", "apng"])
def test_rounding_of_frame_times_does_not_add_up(name: str) -> None:
    durations_ms = animation.frame_durations_ms(FORMATS[name], 34, 24)
    assert sum(durations_ms) == pytest.approx(34000 / 24, abs=0.5)
    assert max(durations_ms) - min(durations_ms) <= 1


@pytest.mark.parametrize("name", ["webp", "avif", "apng", "gif"])
def test_animated_pictures_repeat_forever(tmp_path: Path, name: str) -> None:
    with Image.open(
        write_video(make_frames(), place(tmp_path, name), fps=25, format=name)
    ) as picture:
        assert picture.info.get("loop", 0) == 0


def test_same_frames_same_file(tmp_path: Path) -> None:
    for name in ("mp4", "webm", "ffv1", "webp"):
        first = write_video(make_frames(), tmp_path / f"a{FORMATS[name].suffixes[0]}", fps=24)
        again = write_video(make_frames(), tmp_path / f"b{FORMATS[name].suffixes[0]}", fps=24)
        assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("name", ["mp4", "webm", "webm-av1", "prores", "webp", "avif", "gif"])
def test_higher_quality_means_smaller_error(tmp_path: Path, name: str) -> None:
    grain = 0.05 * torch.randn(4, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    frames = (make_frames(4) + grain).clamp(0, 1)
    errors = []
    for quality in (1, 75, 100):
        path = write_video(
            frames, place(tmp_path, name), fps=25, format=name, quality=quality, repeats=1
        )
        errors.append(error_of(read_video(path)[0], frames))
    assert errors[0] > errors[1] >= errors[2]


def test_comfyui_finds_the_workflow_in_webp(tmp_path: Path) -> None:
    """ComfyUI's page reads EXIF strings of the form key:value."""
    path = write_video(make_frames(2), tmp_path / "a.webp", fps=8, metadata={"workflow": "{}"})
    with Image.open(path) as picture:
        assert "workflow:{}" in picture.getexif().values()


def test_folder_replaces_only_an_older_sequence(tmp_path: Path) -> None:
    folder = write_video(make_frames(5), tmp_path / "loop", fps=12)
    write_video(make_frames(3), folder, fps=12)
    assert [file.name for file in sorted(folder.iterdir())] == [
        f"frame_{i:05d}.png" for i in range(3)
    ]
    (folder / "diary.txt").write_text("mine")
    with pytest.raises(LoopAnimateError, match=r"diary\.txt"):
        write_video(make_frames(2), folder, fps=12)
    assert len(list(folder.iterdir())) == 4


class Interrupting:
    """Frames that raise Ctrl-C in the middle of writing."""

    def __init__(self, frames: torch.Tensor) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 3:
            raise KeyboardInterrupt
        return self.frames[index]


@pytest.mark.parametrize("name", ["mp4", "webm", "gif", "png"])
def test_ctrl_c_keeps_the_old_file_and_removes_temporary_files(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(make_frames(2), place(tmp_path, name), fps=25, format=name)
    before = read_video(path)[0]
    started = record_children(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        write_video(Interrupting(make_frames()), path, fps=25, format=name)
    assert all(child.poll() is not None for child in started)
    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(read_video(path)[0], before)


def record_children(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(ffmpeg.subprocess, "Popen", Recorded)
    return started


@pytest.mark.parametrize("name", ["webp", "png"])
def test_ctrl_c_while_pillow_writes(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_video(make_frames(), place(tmp_path, name), fps=25, format=name)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A file system of 64 KiB; yields a function that remounts it read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if not (
        sys.platform == "linux"
        and mount
        and subprocess.run(command, capture_output=True).returncode == 0
    ):
        pytest.skip("mounting a tiny file system needs root on Linux")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("name", ["mp4", "ffv1", "avif", "gif", "png"])
def test_full_disk_is_one_plain_sentence(tiny_disk: Path, name: str) -> None:
    noise = torch.rand(6, 128, 192, 3, generator=torch.Generator().manual_seed(0))
    path = place(tiny_disk, name)
    with pytest.raises(LoopAnimateError, match=f"cannot write {path}: No space left on device"):
        write_video(noise, path, fps=25, format=name)
    assert list(tiny_disk.iterdir()) == []


def test_read_only_folder_is_one_plain_sentence(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for name in ("mp4", "gif", "png"):
        with pytest.raises(LoopAnimateError, match=r"cannot write .*Read-only file system"):
            write_video(make_frames(), place(tiny_disk, name), fps=25, format=name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "a.avi"}, r"a\.avi ends in \.avi; it must end in one of \.mp4, .*\.gif"),
        ({"format": "h265"}, "unknown format 'h265'; choose one of mp4, webm, webm-av1"),
        ({"format": "gif"}, r"must end in \.gif, got a\.mp4"),
        ({"path": "nowhere/a.mp4"}, "cannot write .*No such file or directory"),
        ({"path": "nowhere/a"}, "cannot write .*No such file or directory"),
        ({"fps": 0}, "fps must be from 1 to 120, got 0"),
        ({"fps": 121}, "fps must be from 1 to 120, got 121"),
        ({"fps": math.nan}, "fps must be from 1 to 120, got nan"),
        ({"frames": torch.zeros(0, 8, 8, 3)}, "0 frames"),
        ({"frames": torch.zeros(8, 8, 3)}, r"frames must be \[P, H, W, 3\]"),
        ({"frames": torch.zeros(2, 3, 8, 8)}, r"got \[2, 3, 8, 8\]"),
        ({"frames": torch.zeros(2, 8, 8, 3, dtype=torch.uint8)}, "frames must be floats"),
        ({"frames": torch.full((2, 8, 8, 3), math.nan)}, "frame 0 has NaN or infinite values"),
        ({"frames": torch.zeros(2, 8, 8, 4)}, "mp4 cannot store transparency; webm, prores"),
        ({"quality": 0}, "quality must be a whole number from 1 to 100, got 0"),
        ({"quality": 80.5}, "got 80.5"),
        ({"repeats": 0}, "repeats must be a whole number from 1 to 1000, got 0"),
        ({"metadata": {"Work Flow": "x"}}, "got 'Work Flow'"),
        ({"metadata": {"loop_fps": "9"}}, "got 'loop_fps'"),
        ({"metadata": {"prompt": 3}}, "must be a string"),
    ],
)
def test_invalid_arguments_raise(tmp_path: Path, arguments: dict, message: str) -> None:
    arguments = {"frames": make_frames(2), "path": "a.mp4", "fps": 24} | arguments
    frames, path = arguments.pop("frames"), tmp_path / arguments.pop("path")
    with pytest.raises(LoopAnimateError, match=message):
        write_video(frames, path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_picture_too_small_for_the_encoder_raises(tmp_path: Path) -> None:
    """1 x 1 is padded where needed; for an encoder's own limit the error contains the encoder's message."""
    for name in ALL_FORMATS:
        path = place(tmp_path, name)
        try:
            write_video(torch.zeros(2, 1, 1, 3), path, fps=25, format=name)
        except LoopAnimateError as error:
            assert str(error).startswith(f"cannot write {path}: ")
        else:
            assert read_video(path)[0].shape[1] in (1, 2)


def test_missing_encoder_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "encoders", lambda: frozenset({"mpeg4"}))
    with pytest.raises(LoopAnimateError, match="has no encoder libsvtav1, so webm-av1 cannot"):
        write_video(make_frames(2), tmp_path / "a.webm", fps=24, format="webm-av1")


def test_this_ffmpeg_lists_its_encoders() -> None:
    assert {"libx264", "libvpx-vp9", "ffv1"} <= ffmpeg.encoders()
    assert "=" not in ffmpeg.encoders()


class Drawn:
    """Draws a frame when asked, and counts."""

    def __init__(self, frames: torch.Tensor) -> None:
        self.frames, self.asked = frames, 0

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> torch.Tensor:
        self.asked += 1
        return self.frames[index]


@pytest.mark.parametrize("name", ["clip.mkv", "clip.apng", "folder"])
def test_frames_drawn_one_at_a_time_give_the_same_file(tmp_path: Path, name: str) -> None:
    frames = torch.rand(5, 24, 32, 3, generator=torch.Generator().manual_seed(0))
    drawn = Drawn(frames)
    write_video(drawn, tmp_path / name, fps=8.0)
    (tmp_path / "whole").mkdir()
    write_video(frames, tmp_path / "whole" / name, fps=8.0)
    found, expected = (read_video(at / name)[0] for at in (tmp_path, tmp_path / "whole"))
    torch.testing.assert_close(found, expected)
    assert drawn.asked <= len(frames) + 2  # the first one also tells the size


@pytest.mark.parametrize("room", [0, 3, 5])
def test_frames_of_a_repeated_loop_are_drawn_once_if_they_fit(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = torch.rand(5, 24, 32, 3, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(write, "KEPT_BYTES", room * 2 * frames[0].numel())  # 16 bits
    drawn = Drawn(frames)
    write_video(drawn, tmp_path / "loop.mkv", fps=8.0, repeats=3)
    found = read_video(tmp_path / "loop.mkv")[0]
    write_video(frames.repeat(3, 1, 1, 1), tmp_path / "long.mkv", fps=8.0)
    torch.testing.assert_close(found, read_video(tmp_path / "long.mkv")[0])
    asked_for_sizes = 2
    assert drawn.asked <= 5 + 2 * (5 - room) + asked_for_sizes


def test_a_drawn_frame_that_is_not_finite_leaves_no_file(tmp_path: Path) -> None:
    frames = [torch.zeros(16, 16, 3), torch.full((16, 16, 3), float("nan"))]
    with pytest.raises(LoopAnimateError, match="frame 1 has NaN"):
        write_video(frames, tmp_path / "loop.mp4", fps=8.0)
    assert not list(tmp_path.iterdir())
