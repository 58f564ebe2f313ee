"""`loopanimate detail`: the frames of any loop move the pixels of a still."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LoopAnimateError
from ..video.formats import FORMATS, check_repeats, find_format
from .drawing import (
    add_detail_options,
    detail_settings,
    load_plate,
    output_path,
    report,
    write_drawn,
)
from .options import PICTURE_HELP, Commands, add_command, add_force
from .outputs import require_writable

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..detail.estimate import Autoencoder

EPILOG = """\
examples:
  loopanimate detail small_loop.mp4 photo.jpg -o photo.mp4
  loopanimate detail frames/ photo.jpg --mask photo_mask.png --size 4k --fps 30
  loopanimate detail loop.webm sticker.png --transparent -o sticker.webp

The first frame must show the picture, evenly cropped to the shape of the frames. The loop may come from any
program. If it was drawn by a model whose bundle you have, --bundle makes the motion more exact.
"""


def add_parser(commands: Commands) -> None:
    """Add the command `detail`."""
    parser = add_command(
        commands,
        "detail",
        "redraw a loop in the pixels of its picture, at any size",
        run,
        usage="%(prog)s FRAMES PICTURE [-o FILE] [options]",
        epilog=EPILOG,
    )
    parser.add_argument(
        "frames",
        metavar="FRAMES",
        help="the loop: a video, an animated picture or a folder of PNGs",
    )
    parser.add_argument("picture", metavar="PICTURE", help=PICTURE_HELP)
    motion = parser.add_argument_group("motion")
    motion.add_argument(
        "--mask",
        metavar="FILE|auto",
        default="auto",
        help="what moves: a picture that is white there, or `auto` to find the subject",
    )
    motion.add_argument(
        "--bundle",
        metavar="FILE",
        help="the model that drew the frames (`mini` for the bundled one); its autoencoder makes the"
        " motion more exact",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o", "--output", metavar="FILE", help="the loop (default: PICTURE_loop.mp4)"
    )
    output.add_argument(
        "--format", choices=list(FORMATS), help="file format (default: from the file's ending)"
    )
    add_detail_options(output, "the picture's own, at most 1080p")
    output.add_argument(
        "--fps",
        type=float,
        metavar="X",
        help="frames per second, 1 to 120 (default: the loop's own)",
    )
    output.add_argument(
        "--quality",
        type=int,
        metavar="N",
        help="1 to 100, the same scale for all formats (default: 75)",
    )
    output.add_argument(
        "--repeats",
        type=int,
        metavar="N",
        help="how many times the file holds the loop (default: 1; mp4: as many as last 10 s)",
    )
    add_force(output)
    output.add_argument(
        "--quiet", action="store_true", help="no progress bar and no report, only file names"
    )


def run(arguments: argparse.Namespace) -> int:
    """Redraw a loop, write it, and report whether it closes."""
    output = output_path(arguments, Path(arguments.picture).stem)
    row = find_format(output, arguments.format)
    require_writable(output, arguments.force, folder=row.writer == "folder")
    row.setting(arguments.quality)
    check_repeats(arguments.repeats)
    from ..detail import transfer
    from ..picture.images import load_picture
    from ..video import read_loop

    picture = load_picture(arguments.picture)
    settings = detail_settings(arguments)
    plate = load_plate(arguments, picture)
    mask = None
    if arguments.mask != "auto":
        mask = load_picture(arguments.mask).over((0.0, 0.0, 0.0)).mean(-1)
    bundle = _open_bundle(arguments.bundle)
    if bundle is not None and arguments.residual is None:
        settings = replace(settings, residual=bundle.config.defaults.residual)
    frames, fps = read_loop(arguments.frames)
    loop = transfer(
        frames,
        picture,
        mask,
        settings,
        frames_fps=fps,
        plate=plate,
        autoencoder=_autoencoder(bundle, (frames.shape[1], frames.shape[2])),
    )
    small = write_drawn(loop, output, arguments, loop.fps)
    print(output)
    if not arguments.quiet:
        report(small, loop, (frames.shape[1], frames.shape[2]))
    return 0


def _open_bundle(name: str | None) -> Bundle | None:
    if name is None:
        return None
    from ..bundle import mini_bundle_path, read_bundle

    return read_bundle(mini_bundle_path() if name == "mini" else Path(name))


def _autoencoder(bundle: Bundle | None, size: tuple[int, int]) -> Autoencoder | None:
    """The round trip through the VAE of a bundle."""
    if bundle is None:
        return None
    from ..encoders.vae import decode_latents, encode_frames

    side_px = bundle.config.pixels_per_latent
    if size[0] % side_px or size[1] % side_px:
        raise LoopAnimateError(
            f"the frames are {size[1]} x {size[0]} pixels; with --bundle both sides must be multiples"
            f" of {side_px}"
        )
    return lambda frames: decode_latents(bundle.vae, encode_frames(bundle.vae, frames))
