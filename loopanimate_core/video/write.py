"""Frames to video files, with defaults that keep the loop closed after encoding.

`write_video` writes every format of `formats.FORMATS`. The reason for each default, and what it
measures: `docs/export.md`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import LoopAnimateError
from ..files import atomic_write, partial_file
from . import animation, ffmpeg, png_folder
from .formats import VideoFormat, check_repeats, find_format, require_alpha
from .frame_source import FrameSource
from .metadata import loop_tags, to_ffmetadata

MIN_FPS, MAX_FPS = 1.0, 120.0
KEPT_BYTES = 256 * 2**20  # of the frames of a loop that is repeated: these are drawn once

_TO_VIDEO = (
    "scale=in_range=full:out_range=limited:out_color_matrix=bt709"
    ":flags=bicubic+accurate_rnd+full_chroma_int,"
    "setparams=range=limited:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)


def write_video(
    frames: FrameSource,
    path: str | Path,
    *,
    fps: float,
    format: str | None = None,
    quality: int | None = None,
    repeats: int | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write the frames that play, `[P, H, W, 3]` or with transparency `[P, H, W, 4]`, as a loop.

    Instead of a tensor, `frames` may be anything that has a length and gives one frame `[H, W, C]` by its
    index, such as a `DetailLoop`. Videos and folders of PNGs then hold one frame in memory at a time, and of a loop
    that is repeated as many as fit into `KEPT_BYTES`; the others are drawn again.

    The last frame is followed by the first, so drop a closing duplicate of the first frame before.
    Values outside 0..1 are clipped. Formats that store colour at half size (mp4, webm, webm-av1) need
    an even width and height: an odd one grows by one pixel, a copy of the edge.

    Args:
        path: the file, or for the format "png" a folder.
        fps: frames per second, 1 to 120. gif stores whole hundredths of a second, so it plays at the
            nearest fps that it can store, with a warning.
        format: a key of `formats.FORMATS`; by default the suffix of `path` decides.
        quality: 1 to 100, default 75, the same scale for every format; lossless formats ignore it.
        repeats: how many times the file holds the loop, 1 to 1000. By default mp4 repeats it to at
            least 10 s, because players stutter where the file starts again.
        metadata: strings by name, such as a workflow; `read_metadata` returns them. The names
            loop_frames (P) and loop_fps are added.

    Returns:
        `path`. The file is written completely, or stays as it was before the call.

    Raises:
        LoopAnimateError: an argument is out of range, the encoder is missing or fails, or the file
            cannot be written.
    """
    path = Path(path)
    row = find_format(path, format)
    _check(frames, row, fps)
    _check_writer(row)
    times = _repeats(row, repeats, len(frames), fps)
    tags = loop_tags(metadata, len(frames), fps)
    setting = row.setting(quality)
    if row.writer == "ffmpeg":
        with atomic_write(path) as temporary:
            _encode(frames, temporary, path, row, setting, fps, times, tags)
        return path
    if row.writer == "folder":
        png_folder.write_folder(_drawn(frames, times, white=255), path, tags)
        return path
    pictures = list(_drawn(frames, 1, white=255)) * times
    durations_ms = animation.frame_durations_ms(row, len(pictures), fps)
    _warn_if_fps_changes(row, durations_ms, fps)
    with atomic_write(path) as temporary:
        try:
            options = row.options(setting, pictures[0][..., 0].size)
            animation.write_animation(pictures, temporary, row, options, durations_ms, tags)
        except ValueError as error:  # Pillow: the format cannot hold such a picture
            raise LoopAnimateError(f"cannot write {path}: {error}") from error
    return path


def _check(frames: FrameSource, row: VideoFormat, fps: float) -> None:
    shape = tuple(frames.shape) if isinstance(frames, Tensor) else _shape(frames)
    if len(shape) != 4 or shape[-1] not in (3, 4) or 0 in shape[1:3]:
        raise LoopAnimateError(f"frames must be [P, H, W, 3] or [P, H, W, 4], got {list(shape)}")
    if shape[0] == 0:
        raise LoopAnimateError("there are 0 frames to write; at least 1 is needed")
    if shape[-1] == 4:
        require_alpha(row)
    check_fps(fps)
    if isinstance(frames, Tensor):  # all of them before any work; others as they are drawn
        for index, frame in enumerate(frames):
            _check_frame(index, frame)


def check_fps(fps: float) -> None:
    """Raise LoopAnimateError unless files can have this speed."""
    if not MIN_FPS <= fps <= MAX_FPS:  # NaN fails too
        raise LoopAnimateError(f"fps must be from {MIN_FPS:g} to {MAX_FPS:g}, got {fps}")


def _shape(frames: FrameSource) -> tuple[int, ...]:
    """(P, H, W, C)."""
    return (len(frames), *frames[0].shape) if len(frames) else (0, 1, 1, 3)


def _check_frame(index: int, frame: Tensor) -> None:
    if not frame.is_floating_point():
        raise LoopAnimateError(f"frames must be floats in 0..1, got {frame.dtype}")
    if not torch.stack(frame.aminmax()).isfinite().all():  # NaN is both, if there is one
        raise LoopAnimateError(f"frame {index} has NaN or infinite values")


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
    check_repeats(repeats)
    return repeats


def _warn_if_fps_changes(
    row: VideoFormat, durations_ms: list[int] | list[float], fps: float
) -> None:
    played = 1000 * len(durations_ms) / sum(durations_ms)
    if row.name == "gif" and abs(played / fps - 1) > 1e-3:
        warnings.warn(
            f"gif stores whole hundredths of a second, so {fps:g} fps play at {played:.4g}; "
            "10, 12.5, 20, 25 and 50 fps are exact",
            stacklevel=3,
        )


def _encode(
    frames: FrameSource,
    temporary: Path,
    path: Path,
    row: VideoFormat,
    setting: int,
    fps: float,
    times: int,
    tags: dict[str, str],
) -> None:
    """Pipe raw frames to ffmpeg; the metadata is a second input, a small text file."""
    _, height, width, channels = _shape(frames)
    layout = ("rgb24", "rgba") if row.white == 255 else ("rgb48le", "rgba64le")
    rate = Fraction(fps).limit_denominator(1001)
    with partial_file(temporary.parent, ".txt") as tag_file:
        tag_file.write_text(to_ffmetadata(tags), encoding="utf-8", newline="\n")
        source = ["-f", "rawvideo", "-pix_fmt", layout[channels - 3], "-s", f"{width}x{height}"]
        source += ["-framerate", f"{rate.numerator}/{rate.denominator}", "-i", "pipe:0"]
        source += [
            "-f",
            "ffmetadata",
            "-i",
            ffmpeg.file_url(tag_file),
            "-map",
            "0:v",
            "-map_metadata",
            "1",
        ]
        ffmpeg.feed(
            [
                *source,
                *_output_arguments(row, setting, rate, width, height, channels),
                "-y",
                ffmpeg.file_url(temporary),
            ],
            (pixels.tobytes() for pixels in _drawn(frames, times, row.white)),
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
        # Pad with a copy of the edge: cropping would lose pixels of the picture.
        pad = f"pad={width + odd_x}:{height + odd_y},fillborders=right={odd_x}:bottom={odd_y}:mode=smear"
        filters.insert(0, pad)
    options = {"c:v": row.encoder, "pix_fmt": pixels, **row.options(setting, width * height)}
    arguments = ["-vf", ",".join(filters)] if filters else []
    for name, value in options.items():
        arguments += [f"-{name}", str(value)]
    arguments += [
        "-fflags",
        "+bitexact",
        "-flags:v",
        "+bitexact",
    ]  # the same frames give the same file
    if row.suffixes[0] in (".mp4", ".mov"):
        # The default clock of the container counts milliseconds and would cut or extend the last frame.
        clock = rate.numerator * max(1, 24000 // rate.numerator)
        arguments += ["-movflags", "+faststart+use_metadata_tags", "-movie_timescale", str(clock)]
    return arguments


def _drawn(frames: FrameSource, times: int, white: int) -> Iterator[np.ndarray]:
    """The frames as whole numbers, `times` times in a row."""
    kept: list[np.ndarray] = []
    left_bytes = KEPT_BYTES if times > 1 else 0
    for index in tuple(range(len(frames))) * times:
        if index < len(kept):
            yield kept[index]
            continue
        frame = frames[index]
        if not isinstance(frames, Tensor):
            _check_frame(index, frame)
        pixels = _pixels(frame, white)
        if index == len(kept) and pixels.nbytes <= left_bytes:
            kept.append(pixels)
            left_bytes -= pixels.nbytes
        yield pixels


def _pixels(frame: Tensor, white: int) -> np.ndarray:
    """One frame `[H, W, C]` of any float dtype and device, rounded to whole numbers from 0 to `white`."""
    scaled = frame.detach().to("cpu", torch.float32).clamp(0, 1).mul_(white).round_()
    return scaled.numpy().astype(np.uint8 if white == 255 else "<u2")
