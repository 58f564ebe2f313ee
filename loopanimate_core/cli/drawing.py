"""Detail transfer on the command line: its options, and loops written while they are drawn."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..detail.settings import BAND, MODES
from ..errors import LoopAnimateError
from ..video.formats import FORMATS, find_format, require_alpha
from .outputs import free_path

if TYPE_CHECKING:
    from torch import Tensor

    from ..detail import DetailLoop, DetailSettings
    from ..picture.images import Picture
    from ..video.frame_source import FrameSource

SMOOTH_FPS = 24.0
CHECKED_PX = 512  # the loop is checked, and shown in a sheet, at this size


def add_detail_options(group: argparse._ActionsContainer, default_size: str) -> None:
    """Add the options of detail transfer."""
    group.add_argument(
        "--size",
        metavar="SIZE",
        help="size of the result: `original` (the picture's own), `model`, `1080p`, `4k` or"
        f" WIDTHxHEIGHT (default: {default_size})",
    )
    group.add_argument(
        "--detail",
        choices=MODES,
        default="auto",
        help="how the picture's own pixels are moved: `rigid` cuts the object out, `elastic` bends the"
        " picture around it, `off` shows the frames as the model drew them",
    )
    group.add_argument(
        "--transparent", action="store_true", help="the object alone, without its background"
    )
    group.add_argument(
        "--plate",
        metavar="FILE",
        help="the same picture without the object: what the object uncovers is taken from it",
    )
    group.add_argument(
        "--residual",
        type=float,
        metavar="X",
        help="how much of what motion cannot explain (a blink, light) is taken from the frames, 0 to 1"
        " (default: the model's own; 0 without a model)",
    )
    group.add_argument(
        "--band",
        type=float,
        default=BAND,
        metavar="X",
        help="width of the bent zone with `--detail elastic`, 0 to 1 of the picture's longer side",
    )


def detail_settings(arguments: argparse.Namespace) -> DetailSettings:
    """What the options say, checked. Without --size: the picture's own size, at most 1080p.

    Raises:
        LoopAnimateError: an option out of its range.
    """
    from ..detail import DetailSettings
    from ..detail.settings import AT_MOST
    from ..video.write import check_fps

    if arguments.fps is not None:
        check_fps(arguments.fps)
    size = arguments.size
    if size is None:
        size = "model" if arguments.detail == "off" else AT_MOST
    return DetailSettings(
        mode=arguments.detail,
        residual=arguments.residual or 0.0,
        band=arguments.band,
        size=size,
        fps=arguments.fps,
        transparent=arguments.transparent,
    )


def smooth_fps(fps: float) -> float:
    """The lowest multiple of `fps` that looks smooth; every frame of the model is one of the loop's."""
    return fps * math.ceil(SMOOTH_FPS / fps)


def output_path(arguments: argparse.Namespace, stem: str) -> Path:
    """The path of -o after checking its ending, or a new name STEM_loop in the current folder.

    Raises:
        LoopAnimateError: the file's format cannot be written, or has no transparency where that is wanted.
    """
    name = arguments.format or ("webp" if arguments.transparent else "mp4")
    if arguments.output is None:
        output = free_path(Path(f"{stem}_loop{FORMATS[name].suffixes[0]}"))
    else:
        output = Path(arguments.output)
    row = find_format(output, arguments.format)
    if arguments.transparent:
        require_alpha(row)
    return output


def load_plate(arguments: argparse.Namespace, picture: Picture) -> Tensor | None:
    """The picture of --plate.

    Raises:
        LoopAnimateError: it cannot be read, or has another size than the picture.
    """
    if arguments.plate is None:
        return None
    from ..picture.images import load_picture

    plate = load_picture(arguments.plate)
    if plate.rgb.shape != picture.rgb.shape:
        raise LoopAnimateError(
            f"the plate {arguments.plate} is {plate.width_px} x {plate.height_px} pixels; it must have"
            f" the picture's size, {picture.width_px} x {picture.height_px}"
        )
    return plate.over()


def write_drawn(
    frames: FrameSource, output: Path, arguments: argparse.Namespace, fps: float, **tags: str
) -> Tensor:
    """Write the frames as they are drawn; returns them `[P, h, w, 3]`, shrunk for a check or a sheet."""
    import torch
    from tqdm import tqdm

    from ..picture.images import Picture
    from ..picture.sheet import shrink_frames
    from ..video import write_video
    from ..video.frame_source import Mapped

    small: dict[int, Tensor] = {}
    with tqdm(unit="frame", leave=False, disable=True if arguments.quiet else None) as bar:

        def on_frame(index: int, frame: Tensor) -> Tensor:
            if index not in small:
                over_white = frame
                if frame.shape[-1] == 4:
                    over_white = Picture(frame[..., :3], frame[..., 3]).over()
                small[index] = shrink_frames(over_white[None], CHECKED_PX)[0]
                bar.total = len(frames)
                bar.update()
            return frame

        write_video(
            Mapped(frames, on_frame),
            output,
            fps=fps,
            format=arguments.format,
            quality=arguments.quality,
            repeats=arguments.repeats,
            metadata=tags,
        )
    return torch.stack([small[index] for index in range(len(frames))])


def report(small: Tensor, loop: DetailLoop, drawn: tuple[int, int], *notes: str) -> None:
    """Print what was written, where its pixels come from, and whether it closes.

    Args:
        small: the frames as `write_drawn` returns them.
        loop: one of the loops that were written.
        drawn: (height, width) of the model's frames.
    """
    from ..check import MIN_FRAMES, check_loop

    count, fps = len(small), loop.fps
    facts = [
        f"{count} frames of {loop.width_px} x {loop.height_px}",
        f"{count / fps:.1f} s at {fps:g} fps",
    ]
    print(", ".join([*facts, *notes]))
    size = f"{drawn[1]} x {drawn[0]}"
    if loop.mode != "off":
        print(
            f"the model drew {size}; the pixels are the picture's own, moved the same way ({loop.mode})"
        )
    elif drawn != (loop.height_px, loop.width_px):
        print(f"the pixels are the model's, enlarged from {size}")
    if count >= MIN_FRAMES:
        print(check_loop(small, fps=fps).summary)
