"""`loopanimate convert`: a model file from public parts, and back into parts."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import LoopAnimateError
from ..schedule import BETA_SCHEDULES
from .options import DTYPES, Commands, HelpFormatter, add_command, add_force
from .outputs import require_writable

# Copies, because the modules of the originals import torch; a test compares them.
CONDITIONINGS = ("loop", "pia")
LAYOUTS = ("diffusers", "checkpoint", "animatediff", "pia", "motion_adapter")
SOURCES = ("unet", "motion", "vae", "text_encoder", "image_encoder")

EPILOG = """\
examples:
  loopanimate convert assemble --unet sd-image-variations/ --text-encoder sd15.safetensors \\
      --motion mm_sd_v15_v2.ckpt -o model.safetensors
  loopanimate convert assemble --unet sd15.safetensors --motion pia.ckpt --conditioning pia \\
      -o pia.safetensors
  loopanimate convert extract model.safetensors --to diffusers -o parts/
  loopanimate convert apply stage3.delta.safetensors --base stage2.safetensors -o stage3.safetensors
"""


def add_parser(commands: Commands) -> None:
    """Add the command `convert` with `assemble`, `extract` and `apply`."""
    parser = commands.add_parser(
        "convert",
        help="build a model file from public parts, or split one into parts",
        description="Build a model file from public parts of Stable Diffusion 1.x, or split one into"
        " parts.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    ways = parser.add_subparsers(metavar="WAY", required=True)
    _add_assemble(ways)
    _add_extract(ways)
    _add_apply(ways)


def _add_assemble(ways: Commands) -> None:
    parser = add_command(ways, "assemble", "build a model file from parts", run_assemble)
    parts = parser.add_argument_group("parts (diffusers folders or single files)")
    parts.add_argument(
        "--unet",
        metavar="PATH",
        required=True,
        help="an sd-image-variations folder, or a Stable Diffusion 1.x folder or checkpoint",
    )
    parts.add_argument(
        "--motion",
        metavar="PATH",
        help="motion modules of AnimateDiff or PIA (default: untrained ones, for training)",
    )
    for option, what in (
        ("--vae", "the VAE"),
        ("--text-encoder", "the text encoder"),
        ("--image-encoder", "the CLIP image encoder"),
    ):
        parts.add_argument(
            option, metavar="PATH", help=f"{what} (default: the one in the UNet's folder or file)"
        )

    model = parser.add_argument_group("the model")
    model.add_argument(
        "--conditioning",
        choices=CONDITIONINGS,
        default="loop",
        help="what the network reads beside the noise: loop is the paper's, which needs training; pia is"
        " PIA's own, which needs its motion module and no image encoder",
    )
    model.add_argument(
        "--conv-in",
        choices=("zero", "random"),
        default="zero",
        help="the five new input channels: zero keeps the UNet's output, random is what the paper does",
    )
    model.add_argument(
        "--routing",
        metavar="DOWN,MIDDLE,UP",
        help="what the cross-attention of the down, middle and up blocks reads: image, text or none (default:"
        " image,text,text; with pia text,text,text)",
    )
    model.add_argument(
        "--beta-schedule",
        choices=BETA_SCHEDULES,
        help="the noise schedule (default: linear with motion modules, else scaled_linear)",
    )
    model.add_argument(
        "--seed", type=int, default=0, metavar="N", help="for everything that starts at random"
    )

    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", metavar="FILE", required=True, help="the model file")
    output.add_argument("--dtype", choices=DTYPES, default="float16", help="stored number format")
    for option in ("--title", "--author", "--license"):
        output.add_argument(option, metavar="TEXT", help="metadata that other programs show")
    add_force(output, "an existing file")


def _add_extract(ways: Commands) -> None:
    parser = add_command(ways, "extract", "write a model's parts for other programs", run_extract)
    parser.add_argument("bundle", metavar="BUNDLE", help="the model file")
    parser.add_argument(
        "--to",
        dest="layout",
        choices=LAYOUTS,
        default="diffusers",
        help="diffusers writes all parts, checkpoint all but the motion modules, the others only those",
    )
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="where to write")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="stored number format")
    parser.add_argument(
        "--force", action="store_true", help="write into a folder that is not empty"
    )


def _add_apply(ways: Commands) -> None:
    parser = add_command(
        ways, "apply", "apply a delta (the changes of a training) to its base model", run_apply
    )
    parser.add_argument("delta", metavar="DELTA", help="the delta file")
    parser.add_argument(
        "--base", metavar="BUNDLE", required=True, help="the model that was trained further"
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the model file")
    add_force(parser, "an existing file")


def run_assemble(arguments: argparse.Namespace) -> int:
    """Build a bundle from diffusers folders, checkpoints and motion modules."""
    output = require_writable(Path(arguments.output), arguments.force)
    import torch

    from ..bundle import write_bundle
    from ..convert.assemble import PartFiles, assemble
    from ..schedule import ScheduleConfig

    given = {name: getattr(arguments, name) for name in SOURCES if getattr(arguments, name)}
    bundle = assemble(
        PartFiles(**{name: Path(path) for name, path in given.items()}),
        conditioning=arguments.conditioning,
        conv_in_init=arguments.conv_in,
        routing=arguments.routing and _routing(arguments.routing),
        schedule=ScheduleConfig(arguments.beta_schedule) if arguments.beta_schedule else None,
        seed=arguments.seed,
    )
    write_bundle(
        output,
        bundle,
        getattr(torch, arguments.dtype),
        title=arguments.title,
        author=arguments.author,
        license=arguments.license,
    )
    print(output)
    return 0


def run_extract(arguments: argparse.Namespace) -> int:
    """Write a bundle's parts for other programs."""
    folder = Path(arguments.output)
    if folder.exists() and not folder.is_dir():
        raise LoopAnimateError(f"{folder} is a file; choose a folder")
    if folder.exists() and not arguments.force and any(folder.iterdir()):
        raise LoopAnimateError(f"{folder} exists and is not an empty folder; --force adds to it")
    import torch

    from ..bundle import read_bundle
    from ..convert.extract import extract

    bundle = read_bundle(arguments.bundle)
    dtype = getattr(torch, arguments.dtype)
    for path in extract(bundle, folder, arguments.layout, dtype=dtype):
        print(path)
    return 0


def run_apply(arguments: argparse.Namespace) -> int:
    """Apply a delta to the bundle that it was made from."""
    output = require_writable(Path(arguments.output), arguments.force)
    from ..bundle.delta import apply_delta

    apply_delta(arguments.delta, arguments.base, output)
    print(output)
    return 0


def _routing(text: str) -> tuple[str, str, str]:
    names = text.split(",")
    if len(names) != 3:
        raise LoopAnimateError(
            f"--routing must be three names with commas, as in image,text,text; got {text!r}"
        )
    return names[0], names[1], names[2]
