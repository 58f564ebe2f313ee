"""Does a perfect loop stay closed after encoding? One table per scene, one row per format.

    python benchmarks/encode_seam.py                      every format at its default
    python benchmarks/encode_seam.py --alternatives       other settings, measured against the defaults
    python benchmarks/encode_seam.py --scenes ease --rotate  start the file at its fastest pair of frames

The seam ratio is the mean absolute difference between the last and the first decoded frame over the
median of the same between neighbours: 1 is invisible, above 1.5 the seam pops, below 0.6 it stalls.
Scenes (`source` rows give their own ratios, before encoding):

    object  a soft patch moving on a circle over a still background with fine grain: the hard case,
            because errors of the encoder show in a background that should not change
    drift   the whole picture moving on a circle at constant speed
    ease    object, slow at the seam and fast half-way, as image models often move
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from loopanimate_core.video import read_video, write_video
from loopanimate_core.video.formats import FORMATS, Options


@dataclass(frozen=True)
class Seam:
    """Seam ratios at the restart of the file, and the worst between its repeats (None: no repeats)."""

    restart: float
    inner: float | None


def measure_seam(frames: Tensor, period: int) -> Seam:
    """Seam ratios of a decoded file [P * repeats, H, W, 3]."""
    count = len(frames)
    steps = [float((frames[(i + 1) % count] - frames[i]).abs().mean()) for i in range(count)]
    inside = [step for i, step in enumerate(steps) if (i + 1) % period]
    typical = float(torch.tensor(inside).median())
    inner = [steps[i] / typical for i in range(period - 1, count - 1, period)]
    return Seam(steps[-1] / typical, max(inner, key=lambda r: abs(math.log(r))) if inner else None)


def make_loop(scene: str, motion_px: float, frames: int, height: int, width: int) -> Tensor:
    """A perfect loop [P, H, W, 3] whose content moves `motion_px` pixels a frame along a circle."""
    turns = torch.arange(frames) / frames
    if scene == "ease":
        turns = turns - 0.8 * torch.sin(2 * math.pi * turns) / (2 * math.pi)
    radius_px = motion_px * frames / (2 * math.pi)
    dx = radius_px * torch.cos(2 * math.pi * turns)
    dy = radius_px * torch.sin(2 * math.pi * turns)
    if scene == "drift":
        texture = Texture(height, width, slope=2.0, seed=0)
        return torch.stack(
            [0.5 + 0.12 * texture.moved(*d) for d in zip(dx, dy, strict=True)]
        ).clamp(0, 1)
    background = 0.5 + 0.14 * Texture(height, width, slope=0.9, seed=1).moved(0, 0)
    patch = Texture(height, width, slope=1.5, seed=0)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pictures = []
    for shift_x, shift_y in zip(dx, dy, strict=True):
        distance_px = torch.hypot(x - width / 2 - shift_x, y - height / 2 - shift_y)
        inside = (0.5 - (distance_px - height / 8) / 2).clamp(0, 1)[..., None]
        pictures.append(torch.lerp(background, 0.4 + 0.15 * patch.moved(shift_x, shift_y), inside))
    return torch.stack(pictures).clamp(0, 1)


class Texture:
    """Coloured noise with amplitude 1 / frequency^slope that can be moved by fractions of a pixel."""

    def __init__(self, height: int, width: int, *, slope: float, seed: int) -> None:
        self.fy, self.fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
        frequency = torch.hypot(self.fy, self.fx)
        amplitude = frequency.clamp(min=1 / 64) ** -slope * (frequency < 0.45)
        white = torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
        mix = torch.tensor([[1, 0.3, 0.1], [1, 0, 0.2], [1, -0.2, -0.3]])
        spectrum = torch.einsum(
            "cd,dyx->cyx", mix.to(torch.cfloat), torch.fft.rfft2(white) * amplitude
        )
        self.size = (height, width)
        self.spectrum = spectrum / torch.fft.irfft2(spectrum, s=self.size).std()

    def moved(self, dx_px: float | Tensor, dy_px: float | Tensor) -> Tensor:
        """[H, W, 3], mean 0, standard deviation 1."""
        phase = -2 * math.pi * (self.fx * dx_px + self.fy * dy_px)
        spectrum = self.spectrum * torch.polar(torch.ones_like(phase), phase)
        return torch.fft.irfft2(spectrum, s=self.size).permute(1, 2, 0)


def rotate_to_fastest(frames: Tensor) -> Tensor:
    """Start the loop at its largest step, where a restart is least visible."""
    steps = (frames - frames.roll(1, 0)).abs().mean((1, 2, 3))
    return frames.roll(-int(steps.argmax()), 0)


def x264(parameters: str = "", **chosen: str | int) -> Callable[[int, int], Options]:
    """mp4's options with another rate control."""

    def options(_: int, size_px: int) -> Options:
        usual = {
            key: value for key, value in FORMATS["mp4"].options(0, size_px).items() if key != "qp"
        }
        return usual | chosen | ({"x264-params": parameters} if parameters else {})

    return options


def changed(name: str, **chosen: str | int | None) -> Callable[[int, int], Options]:
    """A format's default options with some replaced; None leaves one to the encoder."""

    def options(setting: int, size_px: int) -> Options:
        merged = FORMATS[name].options(setting, size_px) | chosen
        return {key: value for key, value in merged.items() if value is not None}

    return options


ALTERNATIVES: dict[str, tuple[str, Callable[[int, int], Options]]] = {
    "mp4 crf 19, 3 refs": ("mp4", x264(crf=19, refs=3)),
    "mp4 crf 16, 3 refs": ("mp4", x264(crf=16, refs=3)),
    "mp4 crf 16, no mbtree": ("mp4", x264("ipratio=1:mbtree=0:qcomp=1", crf=16, refs=3)),
    "mp4 crf 16, grain": ("mp4", x264(crf=16, tune="grain", refs=3)),
    "mp4 crf 16": ("mp4", x264(crf=16)),
    "mp4 qp 16, 3 refs": ("mp4", x264(qp=16, refs=3)),
    "mp4 qp 16, I = P": ("mp4", x264("ipratio=1", qp=16, refs=3)),
    "mp4 qp 16, I finer": ("mp4", x264("ipratio=2.5", qp=16, refs=3)),
    "mp4 qp 12, 3 refs": ("mp4", x264(qp=12, refs=3)),
    "mp4 qp 16, all intra": ("mp4", x264(qp=16, g=1)),
    "mp4 qp 20": ("mp4", x264(qp=20)),
    "mp4 qp 16, medium": ("mp4", x264(qp=16, preset="medium")),
    "mp4 qp 16 (default)": ("mp4", x264(qp=16)),
    "webm crf 32": ("webm", changed("webm", crf=32)),
    "webm, alt refs": ("webm", changed("webm", **{"auto-alt-ref": 1})),
    "av1 crf 32": ("webm-av1", changed("webm-av1", crf=32)),
    "av1, temporal filter": ("webm-av1", changed("webm-av1", **{"svtav1-params": None})),
    "webp 80, key frames": ("webp", changed("webp", quality=80, kmax=None)),
    "webp 80": ("webp", changed("webp", quality=80)),
    "webp 94": ("webp", changed("webp", quality=94)),
    "webp lossless": ("webp", changed("webp", lossless=1, quality=50)),
    "avif 60": ("avif", changed("avif", quality=60)),
}


def encode_rows(
    names: list[str], loops: list[Tensor], fps: float, repeats: int | None
) -> Iterator[str]:
    """One line per format: seam (inner seam), KiB and seconds for each loop."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            row, cells = FORMATS[name], []
            for index, loop in enumerate(loops):
                path = Path(folder) / f"{name} {index}{row.suffixes[0]}"
                start_s = time.perf_counter()
                write_video(loop, path, fps=fps, format=name, repeats=repeats)
                encode_s = time.perf_counter() - start_s
                seam = measure_seam(read_video(path)[0], len(loop))
                files = path.iterdir() if path.is_dir() else [path]
                size_kib = sum(file.stat().st_size for file in files) / 1024
                cells.append(format_cell(seam, size_kib, encode_s))
            yield f"| {name:<22} | {' | '.join(cells)} |"


def format_cell(seam: Seam, size_kib: float, encode_s: float) -> str:
    inner = f"({seam.inner:.2f})" if seam.inner is not None else ""
    return f"{seam.restart:.2f} {inner:<6} {size_kib:6.0f} KiB {encode_s:4.1f} s"


def print_scene(scene: str, names: list[str], arguments: argparse.Namespace) -> None:
    size = (arguments.frames, arguments.height, arguments.width)
    loops = [make_loop(scene, motion, *size) for motion in arguments.motion]
    if arguments.rotate:
        loops = [rotate_to_fastest(loop) for loop in loops]
    print(
        f"\n{scene}{', rotated' if arguments.rotate else ''}: seam (inner seam), size, encoding time"
    )
    print(
        "| format                 | "
        + " | ".join(f"{m:g} px a frame".ljust(28) for m in arguments.motion)
        + " |"
    )
    print("|------------------------|" + "------------------------------|" * len(loops))
    sources = [measure_seam(loop, len(loop)).restart for loop in loops]
    print(
        "| source                 | "
        + " | ".join(f"{ratio:.2f}".ljust(28) for ratio in sources)
        + " |"
    )
    for line in encode_rows(names, loops, arguments.fps, arguments.repeats):
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scenes", nargs="+", default=["object", "drift"], choices=["object", "drift", "ease"]
    )
    parser.add_argument(
        "--motion", nargs="+", type=float, default=[2, 5, 12], metavar="PX", help="pixels a frame"
    )
    parser.add_argument("--frames", type=int, default=34)
    parser.add_argument("--height", type=int, default=288)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--fps", type=float, default=24.0)
    parser.add_argument("--repeats", type=int, help="loops in a file (default: each format's own)")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument(
        "--alternatives", action="store_true", help="measure other settings instead"
    )
    parser.add_argument("--rotate", action="store_true", help="start at the fastest pair of frames")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="gif stores whole hundredths")
    names = arguments.formats
    if arguments.alternatives:
        for name, (base, options) in ALTERNATIVES.items():
            FORMATS[name] = replace(FORMATS[base], name=name, options=options)
        names = list(ALTERNATIVES)
    for scene in arguments.scenes:
        print_scene(scene, names, arguments)


if __name__ == "__main__":
    main()
