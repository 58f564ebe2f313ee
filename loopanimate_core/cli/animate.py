"""`loopanimate animate`: a picture becomes a loop."""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LoopAnimateError
from ..parsing import is_text, plain_text
from ..ranges import MAX_CHAIN, MAX_PROMPT, check_seed, check_whole
from ..travel import parse_travel
from ..video.formats import FORMATS, MAX_REPEATS, check_repeats, find_format
from .drawing import (
    add_detail_options,
    detail_settings,
    load_plate,
    output_path,
    report,
    smooth_fps,
    write_drawn,
)
from .options import PICTURE_HELP, Commands, add_command, add_force
from .outputs import require_distinct, require_writable
from .sampling import add_device_options, add_frames_option, add_sampling_options, pick_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..picture.images import Picture
    from ..pipeline import Loop, LoopAnimatePipeline
    from ..sampling import StepState

# A copy, because the module of the original imports torch; a test compares them.
MOTIONS = ("small", "medium", "large")
TILE_PX = 192  # the frames in a contact sheet

EPILOG = """\
examples:
  loopanimate animate cat.png --prompt "swaying left and right"
  loopanimate animate cat.png --prompt bouncing --seed 3 --format webp --sheet cat_sheet.png
  loopanimate animate cat.png --prompt "0: swaying, 17: bouncing"
  loopanimate animate cat.png --prompt bouncing --prompt spinning --chain 4 -o long.mp4
  loopanimate animate photo.jpg --bundle my_model.safetensors --size 4k --fps 30
  loopanimate animate sticker.png --prompt swaying --transparent -o sticker.webp

Existing files are not replaced without --force. Without -o the loop is written to the current
folder as PICTURE_loop.mp4, or with a number in the name if that file exists.
"""


def add_parser(commands: Commands) -> None:
    """Add the command `animate`."""
    parser = add_command(
        commands,
        "animate",
        "make a loop from a picture",
        run,
        usage="%(prog)s PICTURE [--prompt TEXT] [-o FILE] [options]",
        epilog=EPILOG,
    )
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options of `animate`."""
    parser.add_argument("picture", metavar="PICTURE", help=PICTURE_HELP)
    _add_motion(parser.add_argument_group("motion"))
    _add_sampling(parser.add_argument_group("sampling (defaults: the model's own)"))
    add_device_options(parser.add_argument_group("device"))
    _add_output(parser.add_argument_group("output"))


def _add_motion(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prompt",
        metavar="TEXT",
        action="append",
        help="what moves and how; `0: bobbing, 12: swaying` changes it at these frames, round the loop; repeat"
        " it for the clips of --chain (default: an empty prompt)",
    )
    group.add_argument(
        "--negative",
        metavar="TEXT",
        default="",
        help="what should not happen (default: an empty prompt)",
    )
    group.add_argument(
        "--mask",
        metavar="FILE|auto|none",
        default="auto",
        help="what may move: a picture of the same size that is white there, `auto` to find the"
        " subject, or `none` for the whole picture",
    )
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="each seed gives another loop"
    )
    add_frames_option(group)
    group.add_argument(
        "--chain",
        type=int,
        default=1,
        metavar="N",
        help=f"number of loops to join, 1 to {MAX_CHAIN}, each with the next seed and the next prompt",
    )


def _add_sampling(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--bundle",
        metavar="FILE",
        help="the model: a file, or the name of a fetched one (default: the bundled mini)",
    )
    group.add_argument(
        "--lora",
        metavar="FILE[:X]",
        action="append",
        default=[],
        help="a LoRA or motion LoRA of the network, and how strongly to use it, -10 to 10 (default: 1); repeat"
        " it for more",
    )
    add_sampling_options(group)
    group.add_argument(
        "--image-guidance",
        type=float,
        default=1.0,
        metavar="X",
        help="how strongly to follow the picture, 0 to 100; other values than 1 take half as much"
        " time again",
    )
    group.add_argument(
        "--start",
        "--strength",
        type=float,
        metavar="X",
        help="share of the noise to start from, above 0 to 1; less noise gives less motion",
    )
    group.add_argument(
        "--motion",
        choices=MOTIONS,
        help="how far frames may go from the picture, only for models with PIA's conditioning (default:"
        " medium)",
    )
    group.add_argument(
        "--hold-still",
        type=float,
        metavar="X",
        help="remove flicker up to this strength (in latents) where little moves, 0 (off) to 1",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-o", "--output", metavar="FILE", help="the loop (default: PICTURE_loop.mp4)"
    )
    group.add_argument(
        "--format", choices=list(FORMATS), help="file format (default: from the file's ending)"
    )
    group.add_argument(
        "--width",
        type=int,
        metavar="PX",
        help="width that the model draws, a multiple of 8 (default: the model's own shape nearest to the"
        " picture's)",
    )
    group.add_argument(
        "--height",
        type=int,
        metavar="PX",
        help="height that the model draws, a multiple of 8 (default: as for --width)",
    )
    add_detail_options(group, "the picture's own, at most 1080p")
    group.add_argument(
        "--fps",
        type=float,
        metavar="X",
        help="frames per second, 1 to 120; the loop lasts as long as before (default: the lowest multiple"
        " of the model's own that is 24 or more; with `--detail off` the model's own)",
    )
    group.add_argument(
        "--quality",
        type=int,
        metavar="N",
        help="1 to 100, the same scale for all formats (default: 75)",
    )
    group.add_argument(
        "--repeats",
        type=int,
        metavar="N",
        help=f"how many times the file holds the loop, 1 to {MAX_REPEATS} (default: 1; mp4: as many as last"
        " 10 s)",
    )
    group.add_argument("--sheet", metavar="FILE", help="also write a contact sheet of the frames")
    add_force(group)
    group.add_argument(
        "--quiet", action="store_true", help="no progress bar and no report, only file names"
    )


def run(arguments: argparse.Namespace) -> int:
    """Make a loop or a chain of loops, write it, and report whether it closes."""
    output = output_path(arguments, Path(arguments.picture).stem)
    sheet = None if arguments.sheet is None else Path(arguments.sheet)
    _check(arguments, output, sheet)
    from ..picture.images import check_picture_suffix, load_picture, save_picture
    from ..picture.sheet import contact_sheet, shrink_frames
    from ..video.frame_source import Chained

    if sheet is not None:
        check_picture_suffix(sheet)
        require_writable(sheet, arguments.force)
    picture = load_picture(arguments.picture)
    mask = _mask(arguments.mask, picture)
    settings, plate = detail_settings(arguments), load_plate(arguments, picture)
    loops = _sample(_open_pipeline(arguments), picture, mask, arguments)
    fps = settings.fps
    if fps is None and settings.mode != "off":
        fps = smooth_fps(loops[0].fps)
    shown = [
        loop.frames_at(
            settings.size,
            fps=fps,
            mode=settings.mode,
            residual=arguments.residual,
            band=settings.band,
            transparent=settings.transparent,
            plate=plate,
        )
        for loop in loops
    ]
    prompt = " | ".join(arguments.prompt or [])
    small = write_drawn(
        Chained(shown), output, arguments, shown[0].fps, prompt=prompt, seed=str(arguments.seed)
    )
    print(output)
    if sheet is not None:
        print(save_picture(contact_sheet(shrink_frames(small, TILE_PX)), sheet))
    if not arguments.quiet:
        height, width = loops[0].picture.shape[:2]
        report(small, shown[0], (height, width), f"seed {loops[0].seed}")
    return 0


def _check(arguments: argparse.Namespace, output: Path, sheet: Path | None) -> None:
    """Everything that can be refused before a network is loaded.

    Raises:
        LoopAnimateError: an option out of its range, a prompt that is not text, or a result that cannot be written.
    """
    require_distinct((output, sheet))
    row = find_format(output, arguments.format)
    require_writable(output, arguments.force, folder=row.writer == "folder")
    row.setting(arguments.quality)
    check_repeats(arguments.repeats)
    check_whole("--chain", arguments.chain, 1, MAX_CHAIN)
    clips = f" with --chain {arguments.chain}" if arguments.chain > 1 else ""
    check_seed(f"--seed{clips}", arguments.seed, arguments.chain)
    for text in [*(arguments.prompt or []), arguments.negative]:
        if not is_text(text) or len(text) > MAX_PROMPT:
            raise LoopAnimateError(
                f"a prompt must be UTF-8 text of at most {MAX_PROMPT} characters, got"
                f" {plain_text(text, 60)!r}"
            )
        parse_travel(text)


def _mask(choice: str, picture: Picture) -> Tensor | str:
    """The pipeline's `mask`: `auto`, `none`, or `[H, W]` of the picture's own size."""
    if choice in ("auto", "none"):
        return choice
    from ..picture.images import load_mask

    return load_mask(choice, picture)


def _open_pipeline(arguments: argparse.Namespace) -> LoopAnimatePipeline:
    from ..pipeline import LoopAnimatePipeline

    device, dtype = pick_device(arguments.device, arguments.dtype)
    pipeline = LoopAnimatePipeline.from_bundle(arguments.bundle, device=device, dtype=dtype)
    for given in arguments.lora:
        pipeline.add_lora(*lora_of(given))
    return pipeline


def lora_of(given: str) -> tuple[Path, float]:
    """File and strength of `--lora FILE[:X]`; a colon that no number follows belongs to the file's name."""
    name, colon, strength = given.rpartition(":")
    try:
        return (Path(name), float(strength)) if colon and name else (Path(given), 1.0)
    except ValueError:
        return Path(given), 1.0


def _sample(
    pipeline: LoopAnimatePipeline,
    picture: Picture,
    mask: Tensor | str,
    arguments: argparse.Namespace,
) -> list[Loop]:
    """The loops of the chain: one seed after the other, the prompts in turn."""
    from ..budget import require_loop_memory
    from ..settings import resolve_settings

    prompts, preset = arguments.prompt or [""], "fast" if arguments.fast else "best"
    chosen = {
        "frames": arguments.frames,
        "steps": arguments.steps,
        "guidance": arguments.guidance,
        "image_guidance": arguments.image_guidance,
        "scheduler": arguments.scheduler,
        "closing": arguments.closing,
        "start": arguments.start,
        "motion": arguments.motion,
        "hold_still": arguments.hold_still,
        "mask": mask,
        "height_px": arguments.height,
        "width_px": arguments.width,
    }
    config, size = pipeline.bundle.config, (picture.height_px, picture.width_px)
    settings = resolve_settings(
        config, preset=preset, picture_px=size, seed=arguments.seed, **chosen
    )
    require_loop_memory(config, settings, item_bytes=0, loops=arguments.chain)
    with _progress(arguments.chain, arguments.quiet) as on_step, _out_of_memory_hint():
        return [
            pipeline(
                picture,
                prompts[clip % len(prompts)],
                negative_prompt=arguments.negative,
                seed=arguments.seed + clip,
                preset=preset,
                callback=on_step,
                **chosen,
            )
            for clip in range(arguments.chain)
        ]


@contextmanager
def _progress(clips: int, quiet: bool) -> Iterator[Any]:
    """A progress bar over all steps of all clips, on terminals only; yields the callback for a step."""
    from tqdm import tqdm

    with tqdm(unit="step", leave=False, disable=True if quiet else None) as bar:

        def on_step(state: StepState) -> None:
            bar.total = clips * state.steps
            bar.update()

        yield on_step


@contextmanager
def _out_of_memory_hint() -> Iterator[None]:
    import torch

    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # torch has no exception class for a CPU that runs out of memory.
        if type(error) is RuntimeError and "allocate memory" not in str(error):
            raise
        raise LoopAnimateError(
            "the device has not enough memory; try --dtype float16, fewer --frames, a smaller --width"
            " and --height, or --device cpu"
        ) from error
