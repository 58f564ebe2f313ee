"""`loopanimate mask`: the picture's subject as a mask file."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import PICTURE_HELP, Commands, add_command, add_force
from .outputs import free_path, require_writable

# A copy, because the module of the original imports torch; a test compares the two.
METHODS = ("auto", "alpha", "onnx", "grabcut")


def add_parser(commands: Commands) -> None:
    """Add the command `mask`."""
    parser = add_command(
        commands,
        "mask",
        "write the picture's subject as a mask",
        run,
        epilog="Edit the mask in a paint program and pass it to `animate --mask` to decide what moves.",
    )
    parser.add_argument("picture", metavar="PICTURE", help=PICTURE_HELP)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="white on the subject (default: PICTURE_mask.png)"
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="auto",
        help="the picture's transparency (alpha), a network (onnx) or OpenCV's grabcut; auto takes the"
        " first that is possible",
    )
    parser.add_argument(
        "--model",
        metavar="FILE",
        help="a salient-object network (.onnx; default: the small one of this package)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="X",
        help="0 to 1; lower values select more",
    )
    parser.add_argument(
        "--grow",
        type=int,
        default=0,
        metavar="PX",
        help="widen the mask by so many pixels; negative values shrink it",
    )
    add_force(parser, "an existing file")


def run(arguments: argparse.Namespace) -> int:
    """Write the mask at the picture's own size: white on the subject, black elsewhere."""
    stem = Path(arguments.picture).stem
    output = Path(arguments.output) if arguments.output else free_path(Path(f"{stem}_mask.png"))
    require_writable(output, arguments.force)
    from ..picture.images import check_picture_suffix, load_picture, save_picture
    from ..picture.saliency import salient_mask

    check_picture_suffix(output)
    picture = load_picture(arguments.picture)
    mask = salient_mask(
        picture.over(),
        alpha=picture.alpha,
        method=arguments.method,
        model_path=arguments.model,
        threshold=arguments.threshold,
        grow_px=arguments.grow,
    )
    print(save_picture(mask, output))
    return 0
