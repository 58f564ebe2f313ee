"""The file formats that a loop can be written to, and why their defaults keep the seam closed.

`docs/export.md` has the measurements behind the numbers; `benchmarks/encode_seam.py` repeats them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import LoopAnimateError

DEFAULT_QUALITY = 75
"""The quality (1..100, the same scale for all formats) at which the seams were measured."""

MAX_REPEATS = 1000

Options = dict[str, str | int]


@dataclass(frozen=True)
class VideoFormat:
    """How one format is written.

    Attributes:
        pixels, alpha_pixels: ffmpeg's pixel formats or Pillow's modes, without and with transparency.
        settings: the encoder's own quality numbers at quality 1, 75 (the default) and 100; None for a
            lossless format.
        options: `options(setting, width * height)` gives ffmpeg's output options or the arguments of
            Pillow's `save`.
        min_duration_s: the loop is repeated to last at least this long, so that players restart rarely.
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
        """The whole number that means 1.0 in the raw RGB sent to the encoder.

        Deep formats get 16 bits. When ffmpeg converts these to YUV, its white is 255 * 256 and not
        65535: with 65535 every picture would be 0.4/255 too bright.
        """
        if self.pixels.startswith("gb"):
            return 65535
        return 255 * 256 if "10" in self.pixels else 255

    def setting(self, quality: int | None) -> int:
        """The encoder's own number for `quality` (1..100, None = 75); 0 for a lossless format.

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
        """How many times `frames` are written so that the file lasts at least `min_duration_s`."""
        return max(1, math.ceil(self.min_duration_s * fps / frames - 1e-6))


# One group of pictures: every further key frame in the file would be another visible pop.
_ONE_GROUP: Options = {"g": 99999}


def _h264(qp: int, size_px: int) -> Options:
    # A constant quantiser: at equal file size its seam is smaller than that of -crf, which spends more
    # bits on frames that many others refer to, above all the first. No B-frames: players that ignore
    # edit lists would start late. At a constant quantiser a slower preset gives the same seam and about the same size.
    rate: Options = {"qp": qp, "preset": "veryfast", "bf": 0, "sc_threshold": 0, **_ONE_GROUP}
    return {**rate, "refs": _reference_frames(size_px)}


def _reference_frames(size_px: int) -> int:
    """As many as every H.264 decoder of level 4.1 can hold, at most 16.

    A moving object uncovers background. With the usual 3 reference frames that background is encoded
    again, slightly different each time, and the restart undoes all differences at once: a visible pop.
    With more reference frames it is copied from the last frame that shows it: a smaller pop and file.
    """
    macroblocks = math.ceil(size_px / 256)
    return max(3, min(16, 32768 // macroblocks))


def _vp9(crf: int, _size_px: int) -> Options:
    # No alternate reference frames: they would make single frames better than the rest, and libvpx
    # does not allow them with transparency.
    rate: Options = {"crf": crf, "b:v": 0, "auto-alt-ref": 0}
    return {**rate, "deadline": "good", "cpu-used": 2, "row-mt": 1, **_ONE_GROUP}


def _av1(crf: int, _size_px: int) -> Options:
    # Temporal filtering would average the key frame with the frames after it. The pop that this makes
    # is worst with slow motion: a seam ratio of up to 3.7.
    return {"crf": crf, "preset": 6, "svtav1-params": "enable-tf=0:scd=0", **_ONE_GROUP}


def _prores(qscale: int, _size_px: int) -> Options:
    return {"profile": "4444", "vendor": "apl0", "q:v": qscale}


def _ffv1(_setting: int, _size_px: int) -> Options:
    return {"level": 3, "slicecrc": 1, "g": 1}


def _webp(quality: int, _size_px: int) -> Options:
    # Pillow's default is a key frame every 3 to 5 frames, each a pop; kmax=0 means one per file.
    # allow_mixed: over flat colours a moving object leaves a faint trail, because half-size colour
    # bleeds over its edge and the encoder repaints only what changed. Lossless frames avoid that and
    # are smaller there.
    return {"quality": quality, "method": 4, "kmax": 0, "allow_mixed": 1, "loop": 0}


def _avif(quality: int, _size_px: int) -> Options:
    return {"quality": quality, "subsampling": "4:4:4", "speed": 6}


def _apng(_setting: int, _size_px: int) -> Options:
    return {"loop": 0}


def _gif(colours: int, _size_px: int) -> Options:
    return {"colors": colours, "loop": 0}


def _png(_setting: int, _size_px: int) -> Options:
    return {}


_ROWS = (
    VideoFormat(
        name="mp4",
        suffixes=(".mp4",),
        writer="ffmpeg",
        encoder="libx264",
        pixels="yuv420p",
        alpha_pixels=None,
        settings=(40, 16, 4),
        options=_h264,
        min_duration_s=10.0,
    ),
    VideoFormat(
        name="webm",
        suffixes=(".webm",),
        writer="ffmpeg",
        encoder="libvpx-vp9",
        pixels="yuv420p",
        alpha_pixels="yuva420p",
        settings=(55, 24, 4),
        options=_vp9,
    ),
    VideoFormat(
        name="webm-av1",
        suffixes=(".webm",),
        writer="ffmpeg",
        encoder="libsvtav1",
        pixels="yuv420p10le",
        alpha_pixels=None,
        settings=(60, 24, 4),
        options=_av1,
    ),
    VideoFormat(
        name="prores",
        suffixes=(".mov",),
        writer="ffmpeg",
        encoder="prores_ks",
        pixels="yuv444p10le",
        alpha_pixels="yuva444p10le",
        settings=(24, 4, 1),
        options=_prores,
    ),
    VideoFormat(
        name="ffv1",
        suffixes=(".mkv",),
        writer="ffmpeg",
        encoder="ffv1",
        pixels="gbrp16le",
        alpha_pixels="gbrap16le",
        settings=None,
        options=_ffv1,
    ),
    VideoFormat(
        name="webp",
        suffixes=(".webp",),
        writer="pillow",
        encoder="WEBP",
        pixels="RGB",
        alpha_pixels="RGBA",
        settings=(1, 98, 100),
        options=_webp,
    ),
    VideoFormat(
        name="avif",
        suffixes=(".avif",),
        writer="pillow",
        encoder="AVIF",
        pixels="RGB",
        alpha_pixels="RGBA",
        settings=(1, 80, 100),
        options=_avif,
    ),
    VideoFormat(
        name="apng",
        suffixes=(".apng", ".png"),
        writer="pillow",
        encoder="PNG",
        pixels="RGB",
        alpha_pixels="RGBA",
        settings=None,
        options=_apng,
    ),
    VideoFormat(
        name="gif",
        suffixes=(".gif",),
        writer="pillow",
        encoder="GIF",
        pixels="RGB",
        alpha_pixels="RGBA",
        settings=(8, 256, 256),
        options=_gif,
    ),
    VideoFormat(
        name="png",
        suffixes=("",),
        writer="folder",
        encoder="PNG",
        pixels="RGB",
        alpha_pixels="RGBA",
        settings=None,
        options=_png,
    ),
)
FORMATS: dict[str, VideoFormat] = {row.name: row for row in _ROWS}


def find_format(path: Path, name: str | None) -> VideoFormat:
    """The format with this name, or the one for the suffix of `path` (without suffix: a folder of PNGs).

    Raises:
        LoopAnimateError: an unknown format, or a suffix of another format.
    """
    suffix = path.suffix.lower()
    if name is None:
        for row in FORMATS.values():
            if suffix in row.suffixes:
                return row
        endings = ", ".join(dict.fromkeys(s for row in FORMATS.values() for s in row.suffixes if s))
        raise LoopAnimateError(
            f"{path.name} ends in {suffix}; it must end in one of {endings}, or have no ending for"
            " a folder of PNGs"
        )
    if name not in FORMATS:
        raise LoopAnimateError(f"unknown format {name!r}; choose one of {', '.join(FORMATS)}")
    row = FORMATS[name]
    if row.writer != "folder" and suffix not in row.suffixes:
        raise LoopAnimateError(
            f"a file in format {name} must end in {' or '.join(row.suffixes)}, got {path.name}"
        )
    return row


def check_repeats(repeats: int | None) -> None:
    """Raise LoopAnimateError unless a file can hold a loop so many times; None leaves it to the format."""
    if repeats is None:
        return
    if isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats <= MAX_REPEATS:
        raise LoopAnimateError(
            f"repeats must be a whole number from 1 to {MAX_REPEATS}, got {repeats!r}"
        )


def require_alpha(row: VideoFormat) -> None:
    """Raise LoopAnimateError if the format cannot store transparency."""
    if row.alpha_pixels is None:
        able = ", ".join(other.name for other in FORMATS.values() if other.alpha_pixels)
        raise LoopAnimateError(f"{row.name} cannot store transparency; {able} can")
