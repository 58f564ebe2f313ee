"""Video files, animated pictures and folders of PNGs to frames, fps and metadata."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import LoopAnimateError
from ..files import require_file
from ..memory import require_memory
from ..picture.opening import MAX_PIXELS
from . import animation, ffmpeg, png_folder
from .metadata import FPS_KEY, FRAMES_KEY, from_ffmetadata

FALLBACK_FPS = 8.0
"""The fps of a folder of PNGs that LoopAnimate did not write: such a folder does not store one."""

STREAMING_BYTES_PER_PIXEL = 60  # of one frame: ffmpeg's own, ours, and floats for two of them
_ANIMATION_SUFFIXES = frozenset({".webp", ".avif", ".apng", ".png", ".gif"})
_TO_RGB = "scale=out_range=full:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


def read_video(path: str | Path, *, alpha: bool = False) -> tuple[Tensor, float]:
    """All frames of a file or of a folder of PNGs, float32 `[P, H, W, 3]` in 0..1, and their fps.

    The number of frames comes from decoding and the fps from their timestamps, because headers can be
    wrong. Every repeat of a repeated loop is returned; `read_metadata(path)["loop_frames"]` is its
    length. Frames of unequal duration, as when an encoder merged equal ones, are repeated until all
    have the same duration.

    Args:
        alpha: return `[P, H, W, 4]` with the file's transparency; 1 where it has none.

    Raises:
        LoopAnimateError: the file does not exist, is not a video, or is damaged.
    """
    pictures, fps = stream_video(path, alpha=alpha)
    kept: list[np.ndarray] = []
    for picture in pictures:
        if len(kept) % 32 == 0:
            needed = picture.size * (picture.itemsize + 4) * (len(kept) + 32)
            require_memory(
                needed,
                f"reading {path}",
                "use a shorter or smaller video (`check` reads any length)",
            )
        kept.append(picture)
    frames = torch.empty(len(kept), *kept[0].shape, dtype=torch.float32)
    for frame, picture in zip(frames, kept, strict=True):
        frame.copy_(to_float(picture))
    return frames, fps


def stream_video(path: str | Path, *, alpha: bool = False) -> tuple[Iterator[np.ndarray], float]:
    """The frames of `read_video` one by one, uint8 or big-endian uint16 `[H, W, C]`, all of one size.

    Raises:
        LoopAnimateError: as `read_video`; errors within the file are raised where they are met.
    """
    path = Path(path)
    if path.is_dir():
        pictures, fps = png_folder.read_folder(path), _folder_fps(path)
    else:
        require_file(path, "file")
        if path.suffix.lower() in _ANIMATION_SUFFIXES:
            pictures, fps = animation.read_animation(path)
        else:
            codec, fps = _probe(path)
            pictures = _decode(path, codec, alpha)
    return _of_one_size(pictures, path, 4 if alpha else 3), fps


def _of_one_size(pictures: Iterable[np.ndarray], path: Path, channels: int) -> Iterator[np.ndarray]:
    shape = None
    for picture in pictures:
        if shape is None:
            height, width = picture.shape[:2]
            needed = STREAMING_BYTES_PER_PIXEL * height * width
            require_memory(needed, f"reading {path} ({width} x {height})", "use a smaller video")
        elif picture.shape != shape:
            raise LoopAnimateError(f"cannot read {path}: its frames change their size")
        shape = picture.shape
        yield picture[..., :channels]
    if shape is None:
        raise LoopAnimateError(f"cannot read {path}: it has no frames")


def to_float(picture: np.ndarray) -> Tensor:
    """A decoded frame as float32 in 0..1."""
    scale = np.float32(np.iinfo(picture.dtype).max)
    return torch.from_numpy(picture.astype(np.float32) / scale)


def to_tensor(picture: np.ndarray) -> Tensor:
    """A decoded frame as it is if it is uint8, as `to_float` otherwise."""
    return torch.from_numpy(picture.copy()) if picture.dtype == np.uint8 else to_float(picture)


def read_loop(path: str | Path) -> tuple[Tensor, float]:
    """The frames of a loop, `[P, H, W, 3]` in 0..1, and their fps: `read_video` without the repeats in a file of ours.

    Raises:
        LoopAnimateError: as `read_video`.
    """
    frames, fps = read_video(path)
    once = read_metadata(path).get(FRAMES_KEY, "")
    if once.isdecimal() and 0 < int(once) < len(frames):
        frames = frames[: int(once)]
    return frames, fps


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings stored in a file, by lower-case name; for a folder, those of its first picture.

    Raises:
        LoopAnimateError: the file does not exist or cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        require_file(path, "file")
    if path.is_dir():
        return animation.read_animation_metadata(png_folder.frame_files(path)[0])
    if path.suffix.lower() in _ANIMATION_SUFFIXES:
        return animation.read_animation_metadata(path)
    arguments = [*ffmpeg.input_file(path), "-map_metadata", "0", "-f", "ffmetadata", "pipe:1"]
    text = b"".join(ffmpeg.read_output(arguments, f"cannot read {path}")).decode(errors="replace")
    return from_ffmetadata(text)


def _decode(path: Path, codec: str, alpha: bool) -> Iterator[np.ndarray]:
    """Decoded RGB(A) frames; ffmpeg writes them as PAM pictures, each with a header with its size.

    8 bits per channel, as players show them; 16 for ffv1, which stores RGB. (ffmpeg's conversion from
    YUV to 16-bit RGB is up to 1/255 too dark.)
    """
    deep = codec == "ffv1"
    layout = ("rgba64be" if deep else "rgba") if alpha else ("rgb48be" if deep else "rgb24")
    # ffmpeg's own vp9 decoder ignores the transparency.
    decoder = ["-c:v", "libvpx-vp9"] if alpha and codec == "vp9" else []
    arguments = [*decoder, *ffmpeg.input_file(path), "-map", "0:v:0", "-fps_mode", "passthrough"]
    arguments += ["-vf", _TO_RGB, "-pix_fmt", layout, "-c:v", "pam", "-f", "image2pipe", "pipe:1"]
    return _pam_pictures(ffmpeg.read_output(arguments, f"cannot read {path}"))


def _pam_pictures(pieces: Iterable[bytes]) -> Iterator[np.ndarray]:
    """Split a stream of PAM pictures (text header, big-endian pixels) into arrays `[H, W, C]`."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while (end := buffer.find(b"ENDHDR\n")) >= 0:
            fields = dict(line.split(" ", 1) for line in buffer[:end].decode().splitlines()[1:])
            shape = tuple(int(fields[name]) for name in ("HEIGHT", "WIDTH", "DEPTH"))
            kind = np.dtype("u1" if fields["MAXVAL"] == "255" else ">u2")
            if math.prod(shape[:2]) > MAX_PIXELS:
                raise LoopAnimateError(
                    f"frames of {shape[1]} x {shape[0]} pixels are too large; at most"
                    f" {MAX_PIXELS / 1e6:.0f} megapixels can be read"
                )
            start, size = end + len(b"ENDHDR\n"), kind.itemsize * math.prod(shape)
            if len(buffer) < start + size:
                break
            pixels = bytes(buffer[start : start + size])
            del buffer[: start + size]
            yield np.frombuffer(pixels, kind).reshape(shape)


def _probe(path: Path) -> tuple[str, float]:
    """The codec's name, and the fps from the packets' timestamps, without decoding."""
    arguments = [
        *ffmpeg.input_file(path),
        "-map",
        "0:v:0",
        "-c",
        "copy",
        "-f",
        "framecrc",
        "pipe:1",
    ]
    text = b"".join(ffmpeg.read_output(arguments, f"cannot read {path}")).decode()
    header = dict(re.findall(r"^#(\w+) 0: (.*)$", text, flags=re.MULTILINE))
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    if not rows:
        raise LoopAnimateError(f"cannot read {path}: it has no frames")
    times = sorted(int(row[2]) for row in rows)
    steps, ticks = len(times) - 1, times[-1] - times[0]
    if ticks == 0:  # a single frame: use its duration
        steps, ticks = 1, max(1, int(rows[0][3]))
    duration_ms = ticks * 1000 * float(Fraction(header["tb"]))
    return header["codec_id"], animation.nearest_fps(steps, duration_ms)


def _folder_fps(folder: Path) -> float:
    tag = animation.read_animation_metadata(png_folder.frame_files(folder)[0]).get(FPS_KEY, "")
    return float(tag) if re.fullmatch(r"\d+(\.\d+)?", tag) else FALLBACK_FPS
