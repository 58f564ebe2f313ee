"""`loopanimate fetch`: public weights by recipe, as one model file or in ComfyUI's folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import LoopAnimateError
from .options import Commands, add_command, add_force
from .outputs import require_writable

EPILOG = """\
examples:
  loopanimate fetch
  loopanimate fetch pia
  loopanimate animate photo.jpg --bundle pia --prompt "ripples on a lake"
  loopanimate fetch lcm-lora --comfyui ~/ComfyUI
  loopanimate fetch pia --endpoint https://my-mirror.example

Broken connections are resumed, and files are kept in the cache of Hugging Face (HF_HOME). HF_ENDPOINT names a mirror,
HF_HUB_OFFLINE=1 or --offline uses the cache alone. docs/fetch.md lists every file, its size, licence and source.
"""


def add_parser(commands: Commands) -> None:
    """Add the command `fetch`."""
    parser = add_command(
        commands,
        "fetch",
        "download public weights, as a model or for ComfyUI",
        run,
        usage="%(prog)s [RECIPE] [options]",
        epilog=EPILOG,
    )
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        help="what to fetch; without it all recipes are listed",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="the model file (default: RECIPE.safetensors in the folder of fetched models, where --bundle RECIPE"
        " finds it)",
    )
    where.add_argument(
        "--comfyui",
        metavar="FOLDER",
        help="put the files into the model folders of this ComfyUI instead, and make no model",
    )
    parser.add_argument("--endpoint", metavar="URL", help="a mirror of huggingface.co")
    parser.add_argument(
        "--offline", action="store_true", help="use only files that were downloaded before"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars and no notes")
    add_force(parser, "an existing model file")


def run(arguments: argparse.Namespace) -> int:
    """Fetch a recipe, or list all of them."""
    from ..fetch import find_recipe
    from ..fetch.place import bundle_path_of, comfyui_models, fetch_bundle, fetch_parts
    from ..files import make_folder

    if arguments.recipe is None:
        print("\n".join(_list_lines()))
        return 0
    recipe = find_recipe(arguments.recipe)
    options = {
        "endpoint": arguments.endpoint,
        "offline": arguments.offline,
        "quiet": arguments.quiet,
    }
    if arguments.comfyui is not None:
        paths = fetch_parts(recipe, comfyui_models(Path(arguments.comfyui)), **options)
    elif recipe.assemble is None:
        raise LoopAnimateError(
            f"recipe {recipe.name} makes no model; --comfyui FOLDER says into which ComfyUI its files go"
        )
    else:
        target = Path(arguments.output) if arguments.output else bundle_path_of(recipe)
        if not arguments.output:
            make_folder(target.parent)
        require_writable(target, arguments.force)
        paths = [fetch_bundle(recipe, target, **options)]
    for path in paths:
        print(path)
    if recipe.note and not arguments.quiet:
        print(f"Note: {recipe.note}")
    return 0


def _list_lines() -> list[str]:
    from ..fetch import load_recipes

    lines = []
    for recipe in load_recipes().values():
        unknown = any(file.size_mb is None for file in recipe.files.values())
        size = f"{'at least ' if unknown else ''}{recipe.size_mb:,} MB"
        lines.append(f"{recipe.name:12}  {recipe.title} ({size})")
    return lines
