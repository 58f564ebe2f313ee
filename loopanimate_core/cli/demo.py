"""`loopanimate demo`: `animate` with a bundled picture."""

from __future__ import annotations

import argparse
from importlib import resources
from pathlib import Path

from . import animate
from .drawing import add_detail_options
from .options import Commands, add_command, add_force
from .outputs import free_path

PICTURE = "data/pictures/ghost.png"
PROMPT = "a ghost bobbing up and down"
FLAGS, OPTIONS = (
    ("force", "quiet", "transparent"),
    ("size", "detail", "plate", "residual", "band", "fps"),
)


def add_parser(commands: Commands) -> None:
    """Add the command `demo`."""
    parser = add_command(commands, "demo", "make a loop from a bundled picture", run)
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the loop (default: loopanimate_demo.mp4)"
    )
    add_force(parser)
    add_detail_options(parser, "the picture's own")
    parser.add_argument(
        "--fps",
        type=float,
        metavar="X",
        help="frames per second, 1 to 120 (default: 24)",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bar and no report, only file names"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write a loop of the bundled picture, and a contact sheet beside it."""
    name = "loopanimate_demo.webp" if arguments.transparent else "loopanimate_demo.mp4"
    output = Path(arguments.output or free_path(Path(name)))
    parser = argparse.ArgumentParser()
    animate.add_options(parser)
    with resources.as_file(resources.files("loopanimate_core") / PICTURE) as picture:
        options = [str(picture), "--prompt", PROMPT, "-o", str(output)]
        options += ["--sheet", str(output.with_name(f"{output.stem}_sheet.png"))]
        options += [f"--{flag}" for flag in FLAGS if getattr(arguments, flag)]
        for option in OPTIONS:
            if (value := getattr(arguments, option)) is not None:
                options += [f"--{option}", str(value)]
        return animate.run(parser.parse_args(options))
