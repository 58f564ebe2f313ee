"""The parser of `loopanimate`: all commands in the order in which `--help` lists them."""

from __future__ import annotations

import argparse

from .. import __version__
from . import animate, batch, check, convert, demo, detail, evaluate, fetch, info, mask
from .options import HelpFormatter

EPILOG = """\
examples:
  loopanimate demo
  loopanimate animate cat.png --prompt "bobbing up and down" -o cat.mp4
  loopanimate check cat.mp4

`loopanimate COMMAND --help` explains a command.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; a command's function is in `run` of its parsed arguments."""
    parser = argparse.ArgumentParser(
        prog="loopanimate",
        description="Turn a still picture into a seamlessly looping video.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"loopanimate {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (animate, demo, detail, mask, check, evaluate, batch, info, convert, fetch):
        command.add_parser(commands)
    return parser
