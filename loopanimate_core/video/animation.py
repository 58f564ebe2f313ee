"""Loops as animated pictures (webp, avif, apng, gif), written and read by Pillow."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence, PngImagePlugin, features

from ..errors import LoopAnimateError
from ..parsing import MalformedError, parse_json
from ..picture.opening import open_picture, reading
from .formats import Options, VideoFormat

MAX_FRAMES = 10_000  # of one duration; more only if the file stores more
_GIF_SAMPLE_PX = 1e5  # pixels that the palette is computed from
_GIF_DITHER = (
    8.0  # peak to peak, of 255; an ordered pattern stays still, error diffusion would flicker
)


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
    """Write uint8 frames `[H, W, 3 or 4]` as one animated picture that repeats forever."""
    pictures = [Image.fromarray(frame) for frame in frames]
    arguments: dict[str, Any] = dict(options)
    if row.name == "gif":
        pictures, transparency = _to_palette(frames, int(arguments.pop("colors")))
        arguments |= transparency | {"comment": json.dumps(metadata).encode(), "optimize": False}
    elif row.name == "apng":
        arguments["pnginfo"] = png_text(metadata)
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
    """How long each frame is shown, rounded as the format needs so that errors do not add up.

    webp and avif store whole milliseconds (rounded cumulatively), apng fractions. gif stores hundredths
    of a second: every frame gets the same number of them, at least 2, because players slow down
    shorter ones.
    """
    if row.name == "gif":
        return [max(2, round(100 / fps)) * 10] * frames
    if row.name == "apng":
        return [1000 / fps] * frames
    ends = [0, *accumulate([1000 / fps] * frames)]
    return [round(end) - round(start) for start, end in pairwise(ends)]


def read_animation(path: Path) -> tuple[Iterator[np.ndarray], float]:
    """The frames, uint8 `[H, W, 4]`, and their fps. Frames that an encoder merged are repeated again."""
    with reading(path), open_picture(path) as picture:
        durations_ms = [_duration_ms(frame) for frame in ImageSequence.Iterator(picture)]
    counts, fps = _even_out(durations_ms)
    if sum(counts) > max(MAX_FRAMES, len(counts)):
        raise LoopAnimateError(
            f"{path} shows a frame for {min(durations_ms):g} ms and another for {max(durations_ms):g} ms;"
            f" frames of one duration would be {sum(counts):,}, at most {MAX_FRAMES:,} can be"
        )
    return _iterate(path, counts), fps


def _iterate(path: Path, counts: list[int]) -> Iterator[np.ndarray]:
    with reading(path), open_picture(path) as picture:
        for frame, count in zip(ImageSequence.Iterator(picture), counts, strict=True):
            pixels = np.asarray(frame.convert("RGBA"))
            for _ in range(count):
                yield pixels


def _duration_ms(frame: Image.Image) -> float:
    frame.load()  # the duration of webp and avif frames is known only after decoding
    return float(frame.info.get("duration") or 100)  # browsers use 100 where a file stores 0


def _even_out(durations_ms: list[float]) -> tuple[list[int], float]:
    """Frames of unequal duration as repeats of one duration: the count of each frame, and the fps."""
    guess = [max(1, round(duration / min(durations_ms))) for duration in durations_ms]
    # The mean is more exact than the shortest duration, which is rounded to a whole millisecond.
    base_ms = sum(durations_ms) / sum(guess)
    counts = [max(1, round(duration / base_ms)) for duration in durations_ms]
    return counts, nearest_fps(sum(counts), sum(durations_ms))


def nearest_fps(frames: int, duration_ms: float) -> float:
    """`frames` per `duration_ms` in fps; a whole number if rounding to milliseconds can explain the rest."""
    fps = 1000 * frames / duration_ms
    whole = max(1, round(fps))
    return float(whole) if abs(1000 * frames / whole - duration_ms) <= 1 else fps


def read_animation_metadata(path: Path) -> dict[str, str]:
    """The strings that `write_animation` or `png_folder.write_folder` stored in one picture file."""
    with reading(path), open_picture(path) as picture:
        if picture.format == "GIF":
            return _json_strings(picture.info.get("comment", b""))
        if isinstance(picture, PngImagePlugin.PngImageFile):
            return {key: str(value) for key, value in picture.text.items()}
        entries = [value for value in picture.getexif().values() if isinstance(value, str)]
    texts = [entry.encode("latin-1", "replace").decode(errors="replace") for entry in entries]
    return dict(text.split(":", 1) for text in texts if ":" in text)


def _json_strings(comment: bytes) -> dict[str, str]:
    try:
        found = parse_json(comment, "the comment")
    except MalformedError:  # a comment by another program
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def png_text(metadata: dict[str, str]) -> PngImagePlugin.PngInfo:
    """The metadata as PNG text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in metadata.items():
        info.add_text(key, value)
    return info


def _exif(metadata: dict[str, str]) -> bytes:
    """A TIFF directory with one "key:value" string per tag, the form that ComfyUI's page reads.

    Tags from 0xF000 on are for private use, so no program takes a value for a camera setting.
    """
    entries, values = b"", b""
    values_at = 8 + 2 + 12 * len(metadata) + 4
    for tag, (key, value) in enumerate(metadata.items(), start=0xF000):
        text = f"{key}:{value}".encode() + b"\0"
        entries += struct.pack("<HHII", tag, 2, len(text), values_at + len(values))
        values += text + b"\0" * (len(text) % 2)
    return b"II*\0" + struct.pack("<IH", 8, len(metadata)) + entries + b"\0" * 4 + values


def _to_palette(frames: list[np.ndarray], colours: int) -> tuple[list[Image.Image], dict[str, int]]:
    """One palette for the whole loop, so that a colour that does not move never changes.

    Transparency in gif is one palette entry: a pixel is either opaque or fully transparent.
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
    """The ordered-dither matrix `[size, size]` (a power of two), evenly spaced values in ±0.5."""
    matrix = np.zeros((1, 1))
    while len(matrix) < size:
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return (matrix + 0.5) / matrix.size - 0.5
