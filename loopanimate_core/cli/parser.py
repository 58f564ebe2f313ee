"""What can be typed: every command, its options, their help and their defaults."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

from .. import __version__
from ..schedule import BETA_SCHEDULES, SCHEDULERS
from ..video.formats import FORMATS

# Spelled out here because the modules that own them import torch; a test holds them equal.
CLOSINGS = ("tie", "shift", "windows", "off")
MASK_METHODS = ("auto", "alpha", "onnx", "grabcut")
LAYOUTS = ("diffusers", "checkpoint", "animatediff", "pia", "motion_adapter")
DTYPES = ("float32", "float16", "bfloat16")

Command = Callable[[argparse.Namespace], int]

EPILOG = """\
examples:
  loopanimate demo
  loopanimate animate cat.png --prompt "bobbing up and down" -o cat.mp4
  loopanimate check cat.mp4

`loopanimate COMMAND --help` explains a command.
"""

ANIMATE_EPILOG = """\
examples:
  loopanimate animate cat.png --prompt "swaying left and right"
  loopanimate animate cat.png --prompt bouncing --seed 3 --format webp --sheet cat_sheet.png
  loopanimate animate cat.png --prompt bouncing --prompt spinning --chain 4 -o long.mp4
  loopanimate animate photo.jpg --bundle my_model.safetensors --width 512 --height 512

An existing file named by -o is kept unless --force is given. Without -o the loop is written to
the current folder as PICTURE_loop.mp4, with a number when that name is taken.
"""

CONVERT_EPILOG = """\
examples:
  loopanimate convert assemble --unet sd-image-variations/ --text-encoder sd15.safetensors \\
      --motion mm_sd_v15_v2.ckpt -o model.safetensors
  loopanimate convert extract model.safetensors --to diffusers -o parts/
  loopanimate convert apply stage3.delta.safetensors --base stage2.safetensors -o stage3.safetensors
"""


BATCH_EPILOG = """\
examples:
  loopanimate batch pictures/ --workflow workflows/api/loopanimate_basic_api.json --out loops/
  loopanimate batch pictures/ --workflow mine_api.json --server gpu1:8188 --server gpu2:8188

The workflow is what ComfyUI saves with Workflow > Export (API). It needs Load Picture From Folder (or
Load Image) and Save Loop. What is done is kept in a file beside the folder: after Ctrl-C or a crash
the same command goes on. The exit code is 1 when pictures failed; they are listed with the reason.
"""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples and adds each default that says something."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.default in (None, False, "", argparse.SUPPRESS) or not action.option_strings:
            return text
        return f"{text} (default: %(default)s)"


def build_parser() -> argparse.ArgumentParser:
    """The parser of `loopanimate`; each command leaves its function in `run`."""
    parser = argparse.ArgumentParser(
        prog="loopanimate",
        description="Turn a still picture into a seamlessly looping video.",
        epilog=EPILOG,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"loopanimate {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_animate(commands)
    _add_demo(commands)
    _add_mask(commands)
    _add_check(commands)
    _add_batch(commands)
    _add_info(commands)
    _add_convert(commands)
    return parser


def _add_animate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "animate",
        "make a loop from a picture",
        "make:animate",
        usage="%(prog)s PICTURE [--prompt TEXT] [-o FILE] [options]",
        epilog=ANIMATE_EPILOG,
    )
    parser.add_argument("picture", metavar="PICTURE", help="a picture file of any usual kind")

    motion = parser.add_argument_group("what moves")
    motion.add_argument(
        "--prompt",
        metavar="TEXT",
        action="append",
        help="what should happen; give it again for further clips of --chain (default: no words)",
    )
    motion.add_argument(
        "--negative", metavar="TEXT", default="", help="what should not happen (default: no words)"
    )
    motion.add_argument(
        "--mask",
        metavar="FILE|auto|none",
        default="auto",
        help="the subject: a picture that is white where it is, `auto` to find it, `none` for"
        " the whole picture",
    )
    motion.add_argument(
        "--seed", type=int, default=0, metavar="N", help="another seed, another loop"
    )
    motion.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help="length counting the still at both ends; N-1 frames play (default: the model's own)",
    )
    motion.add_argument(
        "--chain",
        type=int,
        default=1,
        metavar="N",
        help="clips to join: each starts and ends on the picture, with its own seed",
    )

    sampling = parser.add_argument_group("how it is sampled (defaults: the model's own best)")
    sampling.add_argument("--bundle", metavar="FILE", help="the model (default: the bundled mini)")
    sampling.add_argument("--steps", type=int, metavar="N", help="denoising steps")
    sampling.add_argument(
        "--fast", action="store_true", help="fewer steps, a draft in a third of the time"
    )
    sampling.add_argument("--scheduler", choices=list(SCHEDULERS), help="the sampler")
    sampling.add_argument(
        "--guidance", type=float, metavar="X", help="how strictly to follow the prompt"
    )
    sampling.add_argument(
        "--image-guidance",
        type=float,
        default=1.0,
        metavar="X",
        help="above 1: follow the picture more strictly, for half as much time again",
    )
    sampling.add_argument(
        "--start",
        type=float,
        metavar="X",
        help="noise to start from, above 0 to 1: less noise, less motion",
    )
    sampling.add_argument(
        "--hold-still",
        type=float,
        metavar="X",
        help="flicker to take out of places that hardly move, in latents, 0 (off) to 1",
    )
    sampling.add_argument(
        "--closing",
        choices=CLOSINGS,
        default="tie",
        help="how the loop is closed: `windows` makes loops of any length, `off` closes nothing",
    )
    sampling.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, mps (default: the best at hand)"
    )
    sampling.add_argument(
        "--dtype",
        choices=DTYPES,
        help="number format of the weights (default: float16 on cuda, else float32)",
    )

    output = parser.add_argument_group("what is written")
    output.add_argument(
        "-o", "--output", metavar="FILE", help="the loop (default: PICTURE_loop.mp4)"
    )
    output.add_argument(
        "--format", choices=list(FORMATS), help="file format (default: by the file's ending)"
    )
    output.add_argument("--width", type=int, metavar="PX", help="width (default: the model's own)")
    output.add_argument(
        "--height", type=int, metavar="PX", help="height (default: the model's own)"
    )
    output.add_argument(
        "--fps", type=float, metavar="X", help="frames a second (default: the model's own)"
    )
    output.add_argument(
        "--quality",
        type=int,
        metavar="N",
        help="1 to 100, the same scale for every format (default: 75)",
    )
    output.add_argument(
        "--repeats",
        type=int,
        metavar="N",
        help="times the loop is played within the file (default: for mp4 enough to last 10 s)",
    )
    output.add_argument("--sheet", metavar="FILE", help="also write a contact sheet of the frames")
    output.add_argument("--force", action="store_true", help="replace files that exist")
    output.add_argument(
        "--quiet", action="store_true", help="no progress bar, only the file's name"
    )


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "demo", "make a loop from a bundled picture", "make:demo")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the loop (default: loopanimate_demo.mp4)"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bar, only the files' names"
    )


def _add_info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "info", "show what is in a model file", "show:info")
    parser.add_argument(
        "bundle", metavar="BUNDLE", nargs="?", help="the model (default: the bundled mini)"
    )
    parser.add_argument(
        "--table",
        action="store_true",
        help="add the parameters of each part and training stage, beside those of the full size",
    )
    parser.add_argument("--json", action="store_true", help="everything, for programs")


def _add_mask(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "mask",
        "write what would be taken for the picture's subject",
        "mask:mask",
        epilog="Paint in the written file and give it to `animate --mask` to decide for yourself.",
    )
    parser.add_argument("picture", metavar="PICTURE", help="a picture file of any usual kind")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="white on the subject (default: PICTURE_mask.png)"
    )
    parser.add_argument(
        "--method",
        choices=MASK_METHODS,
        default="auto",
        help="its transparency, a network (--model) or without one; auto takes the first possible",
    )
    parser.add_argument("--model", metavar="FILE", help="a salient-object network as an .onnx file")
    parser.add_argument(
        "--threshold", type=float, default=0.5, metavar="X", help="0 to 1, lower takes more"
    )
    parser.add_argument(
        "--grow", type=int, default=0, metavar="PX", help="widen the subject; below 0 narrow it"
    )
    parser.add_argument("--force", action="store_true", help="replace a file that exists")


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "check",
        "measure whether a video file loops without a visible seam",
        "show:check",
        epilog="The exit code is 0 for a loop without a visible seam and 1 for any other video.",
    )
    parser.add_argument(
        "file", metavar="FILE", help="a video, an animated picture or a folder of PNGs"
    )
    parser.add_argument(
        "--picture", metavar="FILE", help="the still: how far is the first frame from it"
    )
    parser.add_argument("--chart", metavar="FILE", help="also write a picture of the seam")
    parser.add_argument(
        "--json", action="store_true", help="everything that was measured, for programs"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def _add_batch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        commands,
        "batch",
        "make a loop of every picture of a folder, on running ComfyUI servers",
        "batch:batch",
        usage="%(prog)s FOLDER --workflow FILE [--server URL ...] [options]",
        epilog=BATCH_EPILOG,
    )
    parser.add_argument("folder", metavar="FOLDER", help="the pictures; folders in it are left out")
    parser.add_argument(
        "--workflow", metavar="FILE", required=True, help="a workflow in ComfyUI's API format"
    )
    parser.add_argument(
        "--server",
        metavar="URL",
        action="append",
        help="a running ComfyUI; several share the work (default: http://127.0.0.1:8188)",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="fetch the loops into this folder (default: they stay on the server)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="of every picture (default: each has its own, the same in every run)",
    )
    parser.add_argument(
        "--picture-node", metavar="ID", help="which node's picture changes, where several load one"
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="try again what failed in an earlier run"
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        help="where progress is kept (default: FOLDER.loopanimate.sqlite beside the folder)",
    )
    parser.add_argument(
        "--in-flight",
        type=int,
        default=2,
        metavar="N",
        help="pictures on each server at a time, the waiting one counted",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds to wait for a server that died; its pictures go to the others meanwhile",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="no progress bar and no line for each loop"
    )


def _add_convert(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "convert",
        help="build a model file from public parts, or take one apart",
        description="Build a model file from public parts of Stable Diffusion 1.x, or take one apart.",
        epilog=CONVERT_EPILOG,
        formatter_class=_HelpFormatter,
    )
    ways = parser.add_subparsers(metavar="WAY", required=True)
    _add_assemble(ways)
    _add_extract(ways)
    _add_apply(ways)


def _add_assemble(ways: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(ways, "assemble", "build a model file from parts", "parts:assemble")
    sources = parser.add_argument_group("parts (folders of diffusers, or single files)")
    sources.add_argument(
        "--unet",
        metavar="PATH",
        required=True,
        help="an sd-image-variations folder, or a Stable Diffusion 1.x folder or checkpoint",
    )
    sources.add_argument(
        "--motion",
        metavar="PATH",
        help="motion modules of AnimateDiff or PIA (default: untrained ones, for training)",
    )
    for option, what in (
        ("--vae", "the autoencoder"),
        ("--text-encoder", "the text encoder"),
        ("--image-encoder", "the CLIP image encoder"),
    ):
        sources.add_argument(
            option, metavar="PATH", help=f"{what} (default: the one beside the UNet)"
        )

    model = parser.add_argument_group("the model")
    model.add_argument(
        "--conv-in",
        choices=("zero", "random"),
        default="zero",
        help="the five new input channels: zero leaves the UNet as it was, random is the paper's",
    )
    model.add_argument(
        "--routing",
        metavar="DOWN,MIDDLE,UP",
        default="image,text,text",
        help="what the blocks' cross-attention reads: image, text or none",
    )
    model.add_argument(
        "--beta-schedule",
        choices=BETA_SCHEDULES,
        help="the noise schedule (default: linear with motion modules, else scaled_linear)",
    )
    model.add_argument("--seed", type=int, default=0, metavar="N", help="of everything random")

    output = parser.add_argument_group("what is written")
    output.add_argument("-o", "--output", metavar="FILE", required=True, help="the model file")
    output.add_argument("--dtype", choices=DTYPES, default="float16", help="number format")
    output.add_argument("--title", metavar="TEXT", help="shown by other programs")
    output.add_argument("--author", metavar="TEXT", help="shown by other programs")
    output.add_argument("--license", metavar="TEXT", help="shown by other programs")
    output.add_argument("--force", action="store_true", help="replace a file that exists")


def _add_apply(ways: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(
        ways, "apply", "put a training's changes (a delta) onto their base", "parts:apply"
    )
    parser.add_argument("delta", metavar="DELTA", help="the changes")
    parser.add_argument("--base", metavar="BUNDLE", required=True, help="the model they belong to")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the model file")
    parser.add_argument("--force", action="store_true", help="replace a file that exists")


def _add_extract(ways: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(ways, "extract", "write a model's parts for other programs", "parts:extract")
    parser.add_argument("bundle", metavar="BUNDLE", help="the model file")
    parser.add_argument(
        "--to",
        dest="layout",
        choices=LAYOUTS,
        default="diffusers",
        help="diffusers holds everything, checkpoint all but the motion modules, the others those",
    )
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="where to")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="number format")
    parser.add_argument(
        "--force", action="store_true", help="write into a folder that is not empty"
    )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    target: str,
    usage: str | None = None,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """A command's parser; `target` is `module:function` of this package, imported when it runs."""
    parser = commands.add_parser(
        name,
        help=summary,
        usage=usage,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=_HelpFormatter,
    )

    def run(arguments: argparse.Namespace) -> int:
        module, function = target.split(":")
        command: Command = getattr(importlib.import_module(f".{module}", __package__), function)
        return command(arguments)

    parser.set_defaults(run=run)
    return parser
