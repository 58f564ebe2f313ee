"""Loops as animated pictures (webp, avif, apng, gif) and as folders of PNGs, by Pillow."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence, PngImagePlugin, features

from ..errors import LoopAnimateError
from .formats import Options, VideoFormat

FRAME_NAME = re.compile(r"frame_\d{5,}\.png")
_GIF_SAMPLE_PX = 1e5  # pixels that the palette is made from
_GIF_DITHER = 8.0  # peak to peak, of 255; the pattern stays put, where error diffusion would crawl


def check_pillow(row: VideoFormat) -> None:
    """Raise LoopAnimateError if this Pillow was built without `row`'s codec."""
    codec = row.encoder.lower()
    if codec in ("webp", "avif") and not features.check(codec):
        raise LoopAnimateError(
            f"the Pillow in use was built without {row.encoder}, so {row.name} cannot be written"
        )


def write_animation(
    frames: list[np.ndarray],
    path: Path,
    row: VideoFormat,
    options: Options,
    durations_ms: list[int] | list[float],
    metadata: dict[str, str],
) -> None:
    """Write uint8 frames [H, W, 3 or 4] as one animated picture that repeats for ever."""
    pictures = [Image.fromarray(frame) for frame in frames]
    arguments: dict[str, Any] = dict(options)
    if row.name == "gif":
        pictures, transparency = _to_palette(frames, int(arguments.pop("colors")))
        arguments |= transparency | {"comment": json.dumps(metadata).encode(), "optimize": False}
    elif row.name == "apng":
        arguments["pnginfo"] = _png_text(metadata)
    else:
        arguments["exif"] = _exif(metadata)
    pictures[0].save(
        path,
        row.encoder,
        save_all=True,
        append_images=pictures[1:],
        duration=durations_ms,
        **arguments,
    )


def frame_durations_ms(row: VideoFormat, frames: int, fps: float) -> list[int] | list[float]:
    """How long each frame shows, in the format's own units, so that errors do not add up over the loop.

    webp and avif count whole milliseconds (rounded cumulatively), apng fractions, gif hundredths of
    a second, of which every frame gets the same number, at least 2: players slow shorter ones down.
    """
    if row.name == "gif":
        return [max(2, round(100 / fps)) * 10] * frames
    if row.name == "apng":
        return [1000 / fps] * frames
    ends = [0, *accumulate([1000 / fps] * frames)]
    return [round(end) - round(start) for start, end in pairwise(ends)]


def read_animation(path: Path) -> tuple[Iterator[np.ndarray], float]:
    """The frames, uint8 [H, W, 4], and their fps. Frames an encoder merged are given back their number."""
    try:
        with Image.open(path) as picture:
            durations_ms = [_duration_ms(frame) for frame in ImageSequence.Iterator(picture)]
    except (OSError, SyntaxError, ValueError) as error:
        raise LoopAnimateError(f"cannot read {path}: {error}") from error
    counts, fps = _even_out(durations_ms)
    return _iterate(path, counts), fps


def _iterate(path: Path, counts: list[int]) -> Iterator[np.ndarray]:
    with Image.open(path) as picture:
        for frame, count in zip(ImageSequence.Iterator(picture), counts, strict=True):
            pixels = np.asarray(frame.convert("RGBA"))
            for _ in range(count):
                yield pixels


def _duration_ms(frame: Image.Image) -> float:
    frame.load()  # webp and avif know a frame's duration only once it is decoded
    return float(frame.info.get("duration") or 100)  # what browsers show where a file says 0


def _even_out(durations_ms: list[float]) -> tuple[list[int], float]:
    """Frames of unequal length as repeats of one length: counts per frame, and the fps."""
    guess = [max(1, round(duration / min(durations_ms))) for duration in durations_ms]
    base_ms = sum(durations_ms) / sum(
        guess
    )  # nearer than the shortest: whole milliseconds are coarse
    counts = [max(1, round(duration / base_ms)) for duration in durations_ms]
    return counts, nearest_fps(sum(counts), sum(durations_ms))


def nearest_fps(frames: int, duration_ms: float) -> float:
    """`frames` per `duration_ms`, as a whole number where rounding to milliseconds may hide one."""
    fps = 1000 * frames / duration_ms
    whole = max(1, round(fps))
    return float(whole) if abs(1000 * frames / whole - duration_ms) <= 1 else fps


def read_animation_metadata(path: Path) -> dict[str, str]:
    """The strings that `write_animation` or `write_folder` stored in one picture file."""
    try:
        with Image.open(path) as picture:
            if picture.format == "GIF":
                return _json_strings(picture.info.get("comment", b""))
            if isinstance(picture, PngImagePlugin.PngImageFile):
                return {key: str(value) for key, value in picture.text.items()}
            entries = [value for value in picture.getexif().values() if isinstance(value, str)]
    except (OSError, SyntaxError, ValueError) as error:
        raise LoopAnimateError(f"cannot read {path}: {error}") from error
    texts = [entry.encode("latin-1").decode(errors="replace") for entry in entries]
    return dict(text.split(":", 1) for text in texts if ":" in text)


def _json_strings(comment: bytes) -> dict[str, str]:
    try:
        found = json.loads(comment)
    except ValueError:  # somebody else's comment
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _png_text(metadata: dict[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in metadata.items():
        info.add_text(key, value)
    return info


def _exif(metadata: dict[str, str]) -> bytes:
    """A TIFF directory with one "key:value" string per tag, the form ComfyUI's page reads back.

    Tags 0xF000 and up are free for private use, so no reader mistakes a value for a camera's.
    """
    entries, values = b"", b""
    values_at = 8 + 2 + 12 * len(metadata) + 4
    for tag, (key, value) in enumerate(metadata.items(), start=0xF000):
        text = f"{key}:{value}".encode() + b"\0"
        entries += struct.pack("<HHII", tag, 2, len(text), values_at + len(values))
        values += text + b"\0" * (len(text) % 2)
    return b"II*\0" + struct.pack("<IH", 8, len(metadata)) + entries + b"\0" * 4 + values


def _to_palette(frames: list[np.ndarray], colours: int) -> tuple[list[Image.Image], dict[str, int]]:
    """One palette for the whole loop, so that a colour at rest never changes between frames.

    Transparency in gif is one palette entry: half-transparent pixels become one or the other.
    """
    height, width, channels = frames[0].shape
    step = math.ceil((len(frames) * height * width / _GIF_SAMPLE_PX) ** 0.5)
    sample = np.concatenate([frame[::step, ::step, :3] for frame in frames])
    opaque = colours if channels == 3 else colours - 1
    palette = Image.fromarray(sample).quantize(opaque, method=Image.Quantize.MEDIANCUT, kmeans=3)
    offsets = _GIF_DITHER * np.resize(_bayer(8), (height, width))[..., None]
    pictures = []
    for frame in frames:
        dithered = np.clip(frame[..., :3] + offsets, 0, 255).round().astype(np.uint8)
        picture = Image.fromarray(dithered).quantize(palette=palette, dither=Image.Dither.NONE)
        if channels == 4:
            picture.paste(opaque, mask=Image.fromarray(np.uint8(255) * (frame[..., 3] < 128)))
        pictures.append(picture)
    return pictures, ({} if channels == 3 else {"transparency": opaque, "disposal": 2})


def _bayer(size: int) -> np.ndarray:
    """The ordered-dither matrix [size, size] (a power of two), values spread evenly in ±0.5."""
    matrix = np.zeros((1, 1))
    while len(matrix) < size:
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return (matrix + 0.5) / matrix.size - 0.5


def write_folder(frames: list[np.ndarray], path: Path, metadata: dict[str, str]) -> None:
    """Write uint8 frames as frame_00000.png, frame_00001.png …; the first carries the metadata.

    The folder appears whole or not at all. An older sequence at `path` is replaced; a folder that
    holds anything else is refused.
    """
    _refuse_foreign_folder(path)
    with _atomic_folder(path) as folder:
        for index, frame in enumerate(frames):
            with (folder / f"frame_{index:05d}.png").open("wb") as file:
                text = _png_text(metadata if index == 0 else {})
                Image.fromarray(frame).save(file, "PNG", pnginfo=text)
                file.flush()
                os.fsync(file.fileno())


def frame_files(folder: Path) -> list[Path]:
    """The PNGs of a folder in order of name; raises LoopAnimateError if there is none."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".png")
    if not files:
        raise LoopAnimateError(f"the folder {folder} holds no .png files")
    return files


def read_folder(folder: Path) -> Iterator[np.ndarray]:
    """The pictures of a folder in order of name, uint8 [H, W, 4].

    Raises:
        LoopAnimateError: there is none, one is damaged, or their sizes differ.
    """
    size = None
    for file in frame_files(folder):
        try:
            with Image.open(file) as picture:
                pixels = np.asarray(picture.convert("RGBA"))
        except (OSError, SyntaxError, ValueError) as error:
            raise LoopAnimateError(f"cannot read {file}: {error}") from error
        if size not in (None, pixels.shape):
            raise LoopAnimateError(f"{file} differs in size from the other frames of its folder")
        size = pixels.shape
        yield pixels


def _refuse_foreign_folder(path: Path) -> None:
    if path.is_file():
        raise LoopAnimateError(f"cannot write the folder {path}: a file has that name")
    if path.is_dir():
        for entry in path.iterdir():
            if not FRAME_NAME.fullmatch(entry.name):
                raise LoopAnimateError(
                    f"the folder {path} holds {entry.name}, so it is not replaced by a PNG sequence"
                )


@contextmanager
def _atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place on success and vanishes otherwise."""
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=path.parent))
    except OSError as error:
        raise LoopAnimateError(f"cannot write {path}: {error.strerror or error}") from error
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir()  # unlike the private folder around it, this one gets the user's permissions
        yield new
        if path.exists():
            os.rename(path, old)
        os.rename(new, path)
    except OSError as error:
        raise LoopAnimateError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if old.exists() and not path.exists():
            os.rename(old, path)
        shutil.rmtree(temporary, ignore_errors=True)
