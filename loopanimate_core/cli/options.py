"""What the parsers of several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace], int]

DTYPES = ("float32", "float16", "bfloat16")
PICTURE_HELP = "a picture file (PNG, JPEG, WebP, TIFF, AVIF, …)"


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples, and adds the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        default, flag = action.default, isinstance(action.default, bool)
        if flag or default in (None, "", argparse.SUPPRESS) or not action.option_strings:
            return text
        return f"{text} (default: %(default)s)"


def add_command(
    commands: Commands,
    name: str,
    summary: str,
    run: Run,
    *,
    usage: str | None = None,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """Add a command to `commands`; `run` is called with its parsed arguments.

    Args:
        summary: shown in the list of commands and, as a sentence, in the command's own help.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        usage=usage,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_force(parser: argparse._ActionsContainer, what: str = "existing files") -> None:
    """Add `--force`."""
    parser.add_argument("--force", action="store_true", help=f"replace {what}")
