"""The file formats a loop can be written to: one row each, and why its defaults keep the seam closed.

`docs/export.md` holds the measurements behind the numbers; `benchmarks/encode_seam.py` makes them again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import LoopAnimateError

DEFAULT_QUALITY = 75
"""The quality, on the scale 1..100 shared by all formats, at which each format's seam was measured."""

Options = dict[str, str | int]


@dataclass(frozen=True)
class VideoFormat:
    """How one format is written.

    `settings` are the encoder's own numbers at quality 1, 75 (the default) and 100; `None` is lossless.
    `options(setting, width * height)` are ffmpeg's output options or Pillow's `save` arguments.
    `pixels` and `alpha_pixels` are ffmpeg's pixel formats or Pillow's modes, without and with transparency.
    `min_duration_s` is what the loop is repeated for: a player's restart is then rare.
    """

    name: str
    suffixes: tuple[str, ...]
    writer: Literal["ffmpeg", "pillow", "folder"]
    encoder: str
    pixels: str
    alpha_pixels: str | None
    settings: tuple[int, int, int] | None
    options: Callable[[int, int], Options]
    min_duration_s: float = 0.0

    @property
    def halves_chroma(self) -> bool:
        """Whether colour is stored at half size, which needs an even width and height."""
        return "420" in self.pixels

    @property
    def white(self) -> int:
        """The whole number that stands for 1.0 in the raw RGB handed to the encoder.

        Deep formats get 16 bits. Where ffmpeg turns these into YUV, it takes white as 255 * 256, not
        as 65535: with the latter every picture comes out 0.4/255 too bright.
        """
        if self.pixels.startswith("gb"):
            return 65535
        return 255 * 256 if "10" in self.pixels else 255

    def setting(self, quality: int | None) -> int:
        """The encoder's own number for `quality` (1..100, `None` = 75); 0 where the format is lossless.

        Raises:
            LoopAnimateError: `quality` is not a whole number from 1 to 100.
        """
        quality = DEFAULT_QUALITY if quality is None else quality
        if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
            raise LoopAnimateError(f"quality must be a whole number from 1 to 100, got {quality!r}")
        if self.settings is None:
            return 0
        worst, usual, best = self.settings
        if quality <= DEFAULT_QUALITY:
            return round(worst + (usual - worst) * (quality - 1) / (DEFAULT_QUALITY - 1))
        return round(usual + (best - usual) * (quality - DEFAULT_QUALITY) / (100 - DEFAULT_QUALITY))

    def automatic_repeats(self, frames: int, fps: float) -> int:
        """How often `frames` are written so that the file lasts `min_duration_s`."""
        return max(1, math.ceil(self.min_duration_s * fps / frames - 1e-6))


# One group of pictures: a key frame within the file would be a second pop.
_ONE_GROUP: Options = {"g": 99999}


def _h264(qp: int, size_px: int) -> Options:
    # A constant quantiser: at equal size its seam is smaller than that of -crf, which is finer on
    # frames that many others refer to, the first above all. No B-frames: players blind to edit lists
    # start late by their delay.
    rate: Options = {"qp": qp, "preset": "medium", "bf": 0, "sc_threshold": 0, **_ONE_GROUP}
    return {**rate, "refs": _reference_frames(size_px)}


def _reference_frames(size_px: int) -> int:
    """As many as every H.264 decoder of level 4.1 holds, at most 16.

    What moves uncovers the background behind it. With the usual 3 references that is coded anew, a
    little different each time, and the restart undoes all the differences at once: the pop. With a
    long memory it is copied from the frame that last saw it: a smaller pop and a smaller file.
    """
    macroblocks = math.ceil(size_px / 256)
    return max(3, min(16, 32768 // macroblocks))


def _vp9(crf: int, _size_px: int) -> Options:
    # Alternate reference frames are hidden averages: one of them is better than the rest, and libvpx
    # refuses them beside transparency.
    rate: Options = {"crf": crf, "b:v": 0, "auto-alt-ref": 0}
    return {**rate, "deadline": "good", "cpu-used": 2, "row-mt": 1, **_ONE_GROUP}


def _av1(crf: int, _size_px: int) -> Options:
    # Temporal filtering makes the key frame an average of its followers, so the slower the motion the
    # worse it pops: a ratio of up to 3.7.
    return {"crf": crf, "preset": 6, "svtav1-params": "enable-tf=0:scd=0", **_ONE_GROUP}


def _prores(qscale: int, _size_px: int) -> Options:
    return {"profile": "4444", "vendor": "apl0", "q:v": qscale}


def _ffv1(_setting: int, _size_px: int) -> Options:
    return {"level": 3, "slicecrc": 1, "g": 1}


def _webp(quality: int, _size_px: int) -> Options:
    # Pillow's default is a key frame every 3 to 5 frames, each a pop; kmax=0 has one for the whole file.
    # On flat colours what moves leaves a faint trail, colour at half size that bled over its edge:
    # the encoder only repaints what changed in the source. Lossless frames, smaller there, do not.
    return {"quality": quality, "method": 4, "kmax": 0, "allow_mixed": 1, "loop": 0}


def _avif(quality: int, _size_px: int) -> Options:
    return {"quality": quality, "subsampling": "4:4:4", "speed": 6}


def _apng(_setting: int, _size_px: int) -> Options:
    return {"loop": 0}


def _gif(colours: int, _size_px: int) -> Options:
    return {"colors": colours, "loop": 0}


def _png(_setting: int, _size_px: int) -> Options:
    return {}


# fmt: off
_ROWS = (
    #           name        suffixes            writer    encoder       pixels         with alpha      1, 75, 100     options    >= s
    VideoFormat("mp4",      (".mp4",),          "ffmpeg", "libx264",    "yuv420p",     None,           (40, 16, 4),   _h264,     10.0),
    VideoFormat("webm",     (".webm",),         "ffmpeg", "libvpx-vp9", "yuv420p",     "yuva420p",     (55, 24, 4),   _vp9),
    VideoFormat("webm-av1", (".webm",),         "ffmpeg", "libsvtav1",  "yuv420p10le", None,           (60, 24, 4),   _av1),
    VideoFormat("prores",   (".mov",),          "ffmpeg", "prores_ks",  "yuv444p10le", "yuva444p10le", (24, 4, 1),    _prores),
    VideoFormat("ffv1",     (".mkv",),          "ffmpeg", "ffv1",       "gbrp16le",    "gbrap16le",    None,          _ffv1),
    VideoFormat("webp",     (".webp",),         "pillow", "WEBP",       "RGB",         "RGBA",         (1, 98, 100),  _webp),
    VideoFormat("avif",     (".avif",),         "pillow", "AVIF",       "RGB",         "RGBA",         (1, 80, 100),  _avif),
    VideoFormat("apng",     (".apng", ".png"),  "pillow", "PNG",        "RGB",         "RGBA",         None,          _apng),
    VideoFormat("gif",      (".gif",),          "pillow", "GIF",        "RGB",         "RGBA",         (8, 256, 256), _gif),
    VideoFormat("png",      ("",),              "folder", "PNG",        "RGB",         "RGBA",         None,          _png),
)
# fmt: on
FORMATS: dict[str, VideoFormat] = {row.name: row for row in _ROWS}


def find_format(path: Path, name: str | None) -> VideoFormat:
    """The format called `name`, or the one whose suffix `path` has; a path without a suffix is a folder of PNGs.

    Raises:
        LoopAnimateError: no such format, or the suffix belongs to another one.
    """
    suffix = path.suffix.lower()
    if name is None:
        for row in FORMATS.values():
            if suffix in row.suffixes:
                return row
        endings = ", ".join(dict.fromkeys(s for row in FORMATS.values() for s in row.suffixes if s))
        raise LoopAnimateError(
            f"{path.name} ends in {suffix}, which is none of {endings}, or no ending for a folder"
        )
    if name not in FORMATS:
        raise LoopAnimateError(f"unknown format {name!r}; choose one of {', '.join(FORMATS)}")
    row = FORMATS[name]
    if row.writer != "folder" and suffix not in row.suffixes:
        raise LoopAnimateError(
            f"a file in format {name} must end in {' or '.join(row.suffixes)}, got {path.name}"
        )
    return row
