"""Small real videos, and runs over them at toy size."""

from __future__ import annotations

import io
import json
import socket
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from h264 import write_video
from PIL import Image

from loopanimate_training.config import RunConfig, resolve
from loopanimate_training.data.photographs.cutouts import CutoutCache
from loopanimate_training.data.photographs.cutouts import prepare as prepare_cutouts
from loopanimate_training.data.stickers.emoji import EmojiCache
from loopanimate_training.data.stickers.packages import prepare
from loopanimate_training.testing import toy_run

Overrides = dict[str, Any]


def moving_square(frames: int, speed: float, height: int = 36, width: int = 48) -> np.ndarray:
    """[frames, H, W, 3] uint8: a bright square that moves back and forth on a dark background."""
    video = np.full((frames, height, width, 3), 40, np.uint8)
    for i in range(frames):
        left = round((width - 12) * (0.5 + 0.5 * float(np.sin(speed * i))))
        video[i, 12:24, left : left + 12] = (230, 200, 60)
    return video


@pytest.fixture(scope="session")
def square_video() -> Callable[[Path, int], Path]:
    """`square_video(path, frames)` writes a video of a square that moves back and forth."""
    return lambda path, frames: write_video(path, moving_square(frames, 0.2))


class Films:
    """Videos whose frames show their number in binary, so that a test can identify each frame."""

    BITS = 8

    @classmethod
    def frames(cls, numbers: Iterable[int], height: int = 16) -> np.ndarray:
        """[n, H, 64, 3] uint8: a bar of 8 pixels per bit, and a bright edge at the top."""
        bits = (np.array(list(numbers))[:, None] >> np.arange(cls.BITS)) & 1
        bars = np.repeat(bits * 200 + 20, 8, axis=1)
        pictures = np.repeat(bars[:, None, :, None], height, axis=1).repeat(3, axis=3)
        pictures[:, :4] = 235
        return pictures.astype(np.uint8)

    @classmethod
    def numbers(cls, frames: np.ndarray) -> list[int]:
        """The numbers that [n, H, 64, 3] frames show."""
        height = frames.shape[1]
        bars = frames[:, height // 2, :, 0].reshape(len(frames), cls.BITS, 8).mean(2) > 120
        return (bars << np.arange(cls.BITS)).sum(1).tolist()

    @classmethod
    def write(cls, path: Path, count: int, *, fps: int = 24, first: int = 0) -> Path:
        """A video with the numbers `first`, `first + 1`, … at a constant frame rate."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_video(path, cls.frames(range(first, first + count)), fps)

    @classmethod
    def write_uneven(cls, path: Path, times_ms: Sequence[int]) -> Path:
        """A video with the numbers 0, 1, … at the given times."""
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("libx264", rate=1000, options={"g": "12"})
            stream.height, stream.width, stream.pix_fmt = 16, 64, "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            for time_ms, picture in zip(times_ms, cls.frames(range(len(times_ms))), strict=True):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path


@pytest.fixture(scope="session")
def films() -> type[Films]:
    return Films


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 110 frames with captions, a video that is too short, and an HTML page named .mp4."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        write_video(folder / f"clip{number}.mp4", moving_square(110, 0.05 * (number + 1)))
        (folder / f"clip{number}.txt").write_text(f"a square swinging {number}\n")
    write_video(folder / "short.mp4", moving_square(20, 0.1))
    (folder / "page.mp4").write_text("<html>404</html>")
    return folder


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test leaves anything in the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user-cache")))
        yield


@pytest.fixture(scope="session")
def index_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index folder shared by toy runs, so that the videos are probed once."""
    return tmp_path_factory.mktemp("index")


@pytest.fixture
def toy(tmp_path: Path, toy_bundle_path: Path) -> Callable[..., RunConfig]:
    """`toy(**{"section.name": value})`: a toy run that saves after each step."""

    def make(
        folder: Path = tmp_path, start: Path | str = toy_bundle_path, **settings: Any
    ) -> RunConfig:
        return toy_run(folder, Path(start), **settings)

    return make


@pytest.fixture
def make_run(
    toy_bundle_path: Path, videos: Path, index_folder: Path, tmp_path: Path
) -> Callable[..., RunConfig]:
    """`make_run(stage, out=…, **{"section.name": value})`: a toy run of a stage over the videos."""

    def make(stage: int | str = 1, **settings: Any) -> RunConfig:
        defaults: Overrides = {
            "out": tmp_path / "run",
            "steps": 6,
            "log_every_steps": 1,
            "device": "cpu",
            "model.start": toy_bundle_path,
            "clip.height_px": 32,
            "clip.width_px": 32,
            "clip.starts_per_clip": 2,
            "clip.mask": "ones",
            "data.source": "videos",
            "data.path": videos,
            "data.cache": tmp_path / "cache",
            "data.index": index_folder,
            "batch.size": 2,
        }
        return resolve(
            stage, None, [f"{name}={value}" for name, value in {**defaults, **settings}.items()]
        )

    return make


# ------------------------------------------------------------------------------- stickers of the mini
STICKER_CODES = [f"{0x1F400 + i:x}" for i in range(36)]
EXTRA_CODES = ["1f468-200d-1f33e", "1f469-200d-1f33e", "1f469-1f3fb-200d-1f33e", "1f590-fe0f"]


def drawn_sticker(number: int, size_px: int = 64) -> np.ndarray:
    """[S, S, 4] uint8: an ellipse in its own colour with a dark wedge and a bright spot."""
    rng = np.random.default_rng(number)
    axis = (np.arange(size_px) + 0.5) * (2.0 / size_px) - 1.0
    x, y = axis[None, :], axis[:, None]
    wide, high = rng.uniform(0.45, 0.85, 2)
    sticker = np.zeros((size_px, size_px, 4), np.uint8)
    sticker[..., :3] = (255, 0, 0)  # transparent: must not bleed into the edges
    body = (x / wide) ** 2 + (y / high) ** 2 < 1.0
    sticker[body] = (*rng.integers(40, 255, 2), 255, 255)
    sticker[body & (y < 0) & (abs(x) < 0.3 * -y)] = (20, 20, 20, 255)
    sticker[body & ((x - 0.3) ** 2 + (y - 0.1) ** 2 < 0.02)] = (250, 250, 250, 255)
    return sticker


@pytest.fixture(scope="session")
def sticker_archives(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Packages as npm packs them: one of pictures (every sixth animated), one of names and tags."""
    folder = tmp_path_factory.mktemp("archives")
    codes = STICKER_CODES + EXTRA_CODES
    pictures: dict[str, bytes] = {"package/README.md": b"MIT"}
    for number, code in enumerate(codes):
        still = drawn_sticker(number)
        if number == 2:
            still[-8:] = (0, 200, 0, 255)  # cut off by the lower edge
        frames = [np.roll(still, shift, axis=0) for shift in range(8 if number % 6 == 1 else 1)]
        first, *rest = (Image.fromarray(frame) for frame in frames)
        buffer = io.BytesIO()
        first.save(
            buffer,
            "WEBP",
            lossless=True,
            exact=True,
            save_all=True,
            append_images=rest,
            duration=42,
        )
        pictures[f"package/assets/{code}.webp"] = buffer.getvalue()
    names = [
        {"hexcode": code.upper().replace("-FE0F", ""), "label": f"Thing № {i}", "tags": ["round"]}
        for i, code in enumerate(codes)
    ]
    paths = [folder / "emoji-anim-1.tgz", folder / "emojibase-data.tgz"]
    write_package(paths[0], pictures)
    write_package(paths[1], {"package/en/data.json": json.dumps(names).encode()})
    return paths


def write_package(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture(scope="session")
def sticker_cache(
    sticker_archives: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> EmojiCache:
    """The mini's data, drawn instead of downloaded."""
    return prepare(sticker_archives, tmp_path_factory.mktemp("stickers"), sprite_px=48)


# ---------------------------------------------------------------------------- cut-outs of the mini
CUTOUT_SHAPES_PX = ((32, 32), (24, 40))


def drawn_photograph(number: int, height_px: int = 90, width_px: int = 120) -> np.ndarray:
    """[H, W, 3] uint8: soft noise with shaded discs in strong colours."""
    rng = np.random.default_rng((number, 7))
    coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
    picture = np.asarray(coarse.resize((width_px, height_px), Image.Resampling.BICUBIC), np.float32)
    y, x = np.mgrid[:height_px, :width_px]
    for _ in range(4):
        centre, radius = rng.uniform(0.2, 0.8, 2) * (height_px, width_px), rng.uniform(12, 24)
        distance = np.hypot(y - centre[0], x - centre[1]) / radius
        shaded = rng.uniform(0, 255, 3) * (1.0 - 0.4 * distance[..., None])
        picture = np.where(distance[..., None] < 1.0, shaded, picture)
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures instead of photographs, in two folders."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(16):
        path = folder / ("hills" if number % 2 else "sea") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(drawn_photograph(number)).save(path)
    (folder / "COPYING.txt").write_text("public domain")
    return folder


@pytest.fixture(scope="session")
def cutout_cache(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> CutoutCache:
    """Cut-outs of the drawn pictures, at toy size."""
    folder = tmp_path_factory.mktemp("cutouts")
    return prepare_cutouts(photographs, folder, CUTOUT_SHAPES_PX, crops=2, regions=1)


@pytest.fixture
def free_port() -> int:
    """A free TCP port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
