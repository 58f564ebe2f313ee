"""Frames to video files and back, with defaults under which the loop stays closed after encoding.

`write_video` and `read_video` know every row of `formats.FORMATS`; files that others made can be
read too. What each default is for, and what it measures: `docs/export.md`.
"""

from __future__ import annotations

import math
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import LoopAnimateError
from ..files import atomic_write
from . import animation, ffmpeg
from .formats import FORMATS, VideoFormat, find_format

MIN_FPS, MAX_FPS = 1.0, 120.0
FALLBACK_FPS = 8.0
"""What a folder of PNGs that we did not write is read at: it says no speed of its own."""

_PERIOD_KEY, _FPS_KEY = "loop_frames", "loop_fps"
_ANIMATION_SUFFIXES = frozenset({".webp", ".avif", ".apng", ".png", ".gif"})
_CONTAINER_KEYS = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands"})
_TO_VIDEO = (
    "scale=in_range=full:out_range=limited:out_color_matrix=bt709"
    ":flags=bicubic+accurate_rnd+full_chroma_int,"
    "setparams=range=limited:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
_TO_RGB = "scale=out_range=full:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


def write_video(
    frames: Tensor,
    path: str | Path,
    *,
    fps: float,
    format: str | None = None,
    quality: int | None = None,
    repeats: int | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write the frames that play, [P, H, W, 3] or with transparency [P, H, W, 4], in 0..1, as a loop.

    The frame after the last is the first: a duplicate of it must be dropped before. Values outside
    0..1 are clipped. Where colour is stored at half size (mp4, webm, webm-av1) an odd width or
    height grows by one pixel, a copy of the edge.

    Args:
        path: the file, or for the format "png" a folder.
        fps: frames per second, 1 to 120. gif counts hundredths of a second: it plays the nearest
            speed it has, with a warning.
        format: a key of `formats.FORMATS`; by default the one that the suffix of `path` names.
        quality: 1 to 100, default 75, the same scale for every format; lossless formats ignore it.
        repeats: how often the loop is in the file. By default mp4 repeats it to last at least 10 s,
            because its restart is where players stutter and the encoder starts anew.
        metadata: strings by name, such as a workflow, that `read_metadata` gives back. The names
            loop_frames (P) and loop_fps are added.

    Returns:
        `path`, which is either whole or as it was before the call.

    Raises:
        LoopAnimateError: any argument is out of range, the encoder is missing or fails, or the file
            cannot be written.
    """
    path = Path(path)
    row = find_format(path, format)
    _check(frames, row, fps)
    _check_writer(row)
    times = _repeats(row, repeats, len(frames), fps)
    tags = _tags(metadata, len(frames), fps)
    setting = row.setting(quality)
    if row.writer == "ffmpeg":
        with atomic_write(path) as temporary:
            _encode(frames, temporary, path, row, setting, fps, times, tags)
        return path
    pictures = [_pixels(frame, white=255) for frame in frames] * times
    if row.writer == "folder":
        animation.write_folder(pictures, path, tags)
        return path
    durations_ms = animation.frame_durations_ms(row, len(pictures), fps)
    _warn_of_speed(row, durations_ms, fps)
    with atomic_write(path) as temporary:
        try:
            options = row.options(setting, frames[0, ..., 0].numel())
            animation.write_animation(pictures, temporary, row, options, durations_ms, tags)
        except ValueError as error:  # Pillow's own word for what a format cannot hold
            raise LoopAnimateError(f"cannot write {path}: {error}") from error
    return path


def read_video(path: str | Path, *, alpha: bool = False) -> tuple[Tensor, float]:
    """All frames of a file or of a folder of PNGs, float32 [P, H, W, 3] in 0..1, and their fps.

    Frames are counted by decoding, and fps by their times: headers are not believed. A file in which
    the loop is repeated gives every repeat; `read_metadata(path)["loop_frames"]` is the period.
    Frames of unequal length, as when an encoder merged equal ones, are repeated to equal lengths.

    Args:
        alpha: give [P, H, W, 4] with the file's transparency, ones where it has none.

    Raises:
        LoopAnimateError: no such file, not a video, or damaged.
    """
    path = Path(path)
    if not path.exists():
        raise LoopAnimateError(f"there is no file {path}")
    if path.is_dir():
        pictures, fps = animation.read_folder(path), _folder_fps(path)
    elif path.suffix.lower() in _ANIMATION_SUFFIXES:
        pictures, fps = animation.read_animation(path)
    else:
        codec, fps = _probe(path)
        pictures = _decode(path, codec, alpha)
    kept = [picture[..., : 4 if alpha else 3] for picture in pictures]
    if not kept:
        raise LoopAnimateError(f"cannot read {path}: it holds no frames")
    frames = torch.empty(len(kept), *kept[0].shape, dtype=torch.float32)
    for frame, picture in zip(frames, kept, strict=True):
        scale = np.float32(np.iinfo(picture.dtype).max)
        frame.copy_(torch.from_numpy(picture.astype(np.float32) / scale))
    return frames, fps


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings stored in a file, names in lower case; for a folder, those of its first picture.

    Raises:
        LoopAnimateError: no such file, or it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise LoopAnimateError(f"there is no file {path}")
    if path.is_dir():
        return animation.read_animation_metadata(animation.frame_files(path)[0])
    if path.suffix.lower() in _ANIMATION_SUFFIXES:
        return animation.read_animation_metadata(path)
    arguments = ["-i", _url(path), "-map_metadata", "0", "-f", "ffmetadata", "pipe:1"]
    text = b"".join(ffmpeg.read_output(arguments, f"cannot read {path}")).decode(errors="replace")
    return _from_ffmetadata(text)


# Arguments


def _check(frames: Tensor, row: VideoFormat, fps: float) -> None:
    shape = tuple(frames.shape)
    if frames.ndim != 4 or shape[-1] not in (3, 4) or 0 in shape[1:3]:
        raise LoopAnimateError(f"frames must be [P, H, W, 3] or [P, H, W, 4], got {list(shape)}")
    if shape[0] == 0:
        raise LoopAnimateError("there are 0 frames to write; at least 1 is needed")
    if not frames.is_floating_point():
        raise LoopAnimateError(f"frames must be floats in 0..1, got {frames.dtype}")
    if shape[-1] == 4 and row.alpha_pixels is None:
        able = ", ".join(other.name for other in FORMATS.values() if other.alpha_pixels)
        raise LoopAnimateError(f"{row.name} holds no transparency; {able} do")
    if not MIN_FPS <= fps <= MAX_FPS:  # NaN fails too
        raise LoopAnimateError(f"fps must be from {MIN_FPS:g} to {MAX_FPS:g}, got {fps}")
    for index, frame in enumerate(frames):
        if not frame.isfinite().all():
            raise LoopAnimateError(f"frame {index} holds values that are not numbers (NaN or Inf)")


def _check_writer(row: VideoFormat) -> None:
    if row.writer == "pillow":
        animation.check_pillow(row)
    elif row.writer == "ffmpeg" and row.encoder not in ffmpeg.encoders():
        raise LoopAnimateError(
            f"the ffmpeg in use ({ffmpeg.ffmpeg_path()}) has no encoder {row.encoder}, "
            f"so {row.name} cannot be written"
        )


def _repeats(row: VideoFormat, repeats: int | None, frames: int, fps: float) -> int:
    if repeats is None:
        return row.automatic_repeats(frames, fps)
    if isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats <= 1000:
        raise LoopAnimateError(f"repeats must be a whole number from 1 to 1000, got {repeats!r}")
    return repeats


def _tags(metadata: dict[str, str] | None, frames: int, fps: float) -> dict[str, str]:
    tags = dict(metadata or {})
    for key, value in tags.items():
        # Matroska stores names in capitals, so only lower case comes back as it went in.
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", key) or key in (_PERIOD_KEY, _FPS_KEY):
            raise LoopAnimateError(
                f"a metadata name is lower-case letters, digits and _, at most 64, "
                f"and neither {_PERIOD_KEY} nor {_FPS_KEY}; got {key!r}"
            )
        if not isinstance(value, str) or "\0" in value:
            raise LoopAnimateError(f"the metadata {key!r} must be a string without NUL characters")
    return tags | {_PERIOD_KEY: str(frames), _FPS_KEY: f"{fps:.6g}"}


def _warn_of_speed(row: VideoFormat, durations_ms: list[int] | list[float], fps: float) -> None:
    played = 1000 * len(durations_ms) / sum(durations_ms)
    if row.name == "gif" and abs(played / fps - 1) > 1e-3:
        warnings.warn(
            f"gif counts hundredths of a second, so {fps:g} fps play at {played:.4g}; "
            "10, 12.5, 20, 25 and 50 are exact",
            stacklevel=3,
        )


# Encoding


def _encode(
    frames: Tensor,
    temporary: Path,
    path: Path,
    row: VideoFormat,
    setting: int,
    fps: float,
    times: int,
    tags: dict[str, str],
) -> None:
    """Pipe raw frames to ffmpeg; a second input, a small text file, carries the metadata."""
    height, width, channels = frames.shape[1:]
    layout = ("rgb24", "rgba") if row.white == 255 else ("rgb48le", "rgba64le")
    rate = Fraction(fps).limit_denominator(1001)
    with tempfile.TemporaryDirectory() as folder:
        tag_file = Path(folder) / "tags.txt"
        tag_file.write_text(_to_ffmetadata(tags), encoding="utf-8", newline="\n")
        source = ["-f", "rawvideo", "-pix_fmt", layout[channels - 3], "-s", f"{width}x{height}"]
        source += ["-framerate", f"{rate.numerator}/{rate.denominator}", "-i", "pipe:0"]
        source += ["-f", "ffmetadata", "-i", str(tag_file), "-map", "0:v", "-map_metadata", "1"]
        ffmpeg.feed(
            [
                *source,
                *_output_arguments(row, setting, rate, width, height, channels),
                "-y",
                _url(temporary),
            ],
            _raw_frames(frames, times, row.white),
            f"cannot write {path}",
        )


def _output_arguments(
    row: VideoFormat, setting: int, rate: Fraction, width: int, height: int, channels: int
) -> list[str]:
    pixels = row.pixels if channels == 3 else row.alpha_pixels
    assert pixels is not None
    filters = [] if pixels.startswith("gbr") else [_TO_VIDEO]
    odd_x, odd_y = width % 2, height % 2
    if row.halves_chroma and (odd_x or odd_y):
        # Padded by a copy of the edge: cropping would lose the picture's own pixels.
        pad = f"pad={width + odd_x}:{height + odd_y},fillborders=right={odd_x}:bottom={odd_y}:mode=smear"
        filters.insert(0, pad)
    options = {"c:v": row.encoder, "pix_fmt": pixels, **row.options(setting, width * height)}
    arguments = ["-vf", ",".join(filters)] if filters else []
    for name, value in options.items():
        arguments += [f"-{name}", str(value)]
    arguments += ["-fflags", "+bitexact", "-flags:v", "+bitexact"]  # same frames, same file
    if row.suffixes[0] in (".mp4", ".mov"):
        # The default movie clock ticks in milliseconds and would cut or hold the last frame.
        clock = rate.numerator * max(1, 24000 // rate.numerator)
        arguments += ["-movflags", "+faststart+use_metadata_tags", "-movie_timescale", str(clock)]
    return arguments


def _raw_frames(frames: Tensor, times: int, white: int) -> Iterator[bytes]:
    for _ in range(times):
        for frame in frames:
            yield _pixels(frame, white).tobytes()


def _pixels(frame: Tensor, white: int) -> np.ndarray:
    """One frame [H, W, C] of any float type and device, rounded to whole numbers from 0 to `white`."""
    scaled = frame.detach().to("cpu", torch.float32).clamp(0, 1).mul(white).round()
    return scaled.numpy().astype(np.uint8 if white == 255 else "<u2")


# Decoding


def _decode(path: Path, codec: str, alpha: bool) -> Iterator[np.ndarray]:
    """Decoded RGB(A) frames: ffmpeg writes PAM pictures, each with its own size in front.

    8 bits, as players show them; 16 for ffv1, which stores RGB. (From YUV ffmpeg's 16-bit RGB is up to
    1/255 too dark.)
    """
    deep = codec == "ffv1"
    layout = ("rgba64be" if deep else "rgba") if alpha else ("rgb48be" if deep else "rgb24")
    # ffmpeg's own vp9 decoder passes over the transparency.
    decoder = ["-c:v", "libvpx-vp9"] if alpha and codec == "vp9" else []
    arguments = [*decoder, "-i", _url(path), "-map", "0:v:0", "-fps_mode", "passthrough"]
    arguments += ["-vf", _TO_RGB, "-pix_fmt", layout, "-c:v", "pam", "-f", "image2pipe", "pipe:1"]
    return _pam_pictures(ffmpeg.read_output(arguments, f"cannot read {path}"))


def _pam_pictures(pieces: Iterable[bytes]) -> Iterator[np.ndarray]:
    """Cut a stream of PAM pictures (a text header, then the pixels, big-endian) into arrays [H, W, C]."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while (end := buffer.find(b"ENDHDR\n")) >= 0:
            fields = dict(line.split(" ", 1) for line in buffer[:end].decode().splitlines()[1:])
            shape = tuple(int(fields[name]) for name in ("HEIGHT", "WIDTH", "DEPTH"))
            kind = np.dtype("u1" if fields["MAXVAL"] == "255" else ">u2")
            start, size = end + len(b"ENDHDR\n"), kind.itemsize * math.prod(shape)
            if len(buffer) < start + size:
                break
            pixels = bytes(buffer[start : start + size])
            del buffer[: start + size]
            yield np.frombuffer(pixels, kind).reshape(shape)


def _probe(path: Path) -> tuple[str, float]:
    """The codec's name, and the frames per second by the packets' own times; nothing is decoded."""
    arguments = ["-i", _url(path), "-map", "0:v:0", "-c", "copy", "-f", "framecrc", "pipe:1"]
    text = b"".join(ffmpeg.read_output(arguments, f"cannot read {path}")).decode()
    header = dict(re.findall(r"^#(\w+) 0: (.*)$", text, flags=re.MULTILINE))
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    if not rows:
        raise LoopAnimateError(f"cannot read {path}: it holds no frames")
    times = sorted(int(row[2]) for row in rows)
    steps, ticks = len(times) - 1, times[-1] - times[0]
    if ticks == 0:  # a single frame: all there is to go by is how long it shows
        steps, ticks = 1, max(1, int(rows[0][3]))
    duration_ms = ticks * 1000 * float(Fraction(header["tb"]))
    return header["codec_id"], animation.nearest_fps(steps, duration_ms)


def _folder_fps(folder: Path) -> float:
    tag = animation.read_animation_metadata(animation.frame_files(folder)[0]).get(_FPS_KEY, "")
    return float(tag) if re.fullmatch(r"\d+(\.\d+)?", tag) else FALLBACK_FPS


def _url(path: Path) -> str:
    """`file:` keeps ffmpeg from reading a protocol or an option into a file's name."""
    return f"file:{path}"


# Metadata text in ffmpeg's own form


def _to_ffmetadata(tags: dict[str, str]) -> str:
    escaped = {key: re.sub(r"([=;#\\\n])", r"\\\1", value) for key, value in tags.items()}
    return ";FFMETADATA1\n" + "".join(f"{key}={value}\n" for key, value in escaped.items())


def _from_ffmetadata(text: str) -> dict[str, str]:
    tags = {}
    for line in re.findall(r"(?:[^\\\n]|\\.)+", text, flags=re.DOTALL):
        if line.startswith("["):  # tags of single streams follow
            break
        if match := re.fullmatch(r"((?:[^\\=]|\\.)*)=(.*)", line, flags=re.DOTALL):
            key = match[1].lower()
            if key not in _CONTAINER_KEYS:
                tags[key] = re.sub(r"\\(.)", r"\1", match[2], flags=re.DOTALL)
    return tags
