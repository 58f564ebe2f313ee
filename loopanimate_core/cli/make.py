"""`loopanimate animate` and `loopanimate demo`: a picture becomes a loop."""

from __future__ import annotations

import argparse
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LoopAnimateError
from ..video.formats import FORMATS, find_format
from .outputs import free_path, require_writable
from .parser import build_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..picture.images import Picture
    from ..pipeline import Loop, LoopAnimatePipeline
    from ..sampling import StepState

DEMO_PICTURE = "data/pictures/ghost.png"
DEMO_PROMPT = "a ghost bobbing up and down"


def animate(arguments: argparse.Namespace) -> int:
    """Make one loop, or a chain of loops, write it and say whether it closes."""
    output = _output_path(arguments)
    sheet = None if arguments.sheet is None else Path(arguments.sheet)
    for path in filter(None, (output, sheet)):
        require_writable(path, arguments.force)
    if arguments.chain < 1:
        raise LoopAnimateError(f"--chain is {arguments.chain}; it must be 1 or more")
    import torch

    from ..picture.images import load_picture, save_picture
    from ..picture.sheet import contact_sheet
    from ..video import write_video

    picture = load_picture(arguments.picture)
    mask = _mask(arguments.mask, picture)
    pipeline = _open_pipeline(arguments)
    loops = _sample(pipeline, picture, mask, arguments)
    frames = torch.cat([loop.frames for loop in loops])
    fps = loops[0].fps if arguments.fps is None else arguments.fps
    write_video(
        frames,
        output,
        fps=fps,
        format=arguments.format,
        quality=arguments.quality,
        repeats=arguments.repeats,
        metadata={"prompt": " | ".join(arguments.prompt or []), "seed": str(arguments.seed)},
    )
    if sheet is not None:
        save_picture(contact_sheet(frames), sheet)
    print(output)
    if sheet is not None:
        print(sheet)
    if not arguments.quiet:
        _report(frames, fps, loops[0].seed)
    return 0


def demo(arguments: argparse.Namespace) -> int:
    """`animate` with a bundled picture, and a contact sheet beside the loop."""
    output = Path(arguments.output or free_path(Path("loopanimate_demo.mp4")))
    with resources.as_file(resources.files("loopanimate_core") / DEMO_PICTURE) as picture:
        command = ["animate", str(picture), "--prompt", DEMO_PROMPT, "-o", str(output)]
        command += ["--sheet", str(output.with_name(f"{output.stem}_sheet.png"))]
        command += [f"--{name}" for name in ("force", "quiet") if getattr(arguments, name)]
        return animate(build_parser().parse_args(command))


def _output_path(arguments: argparse.Namespace) -> Path:
    """-o, after checking its ending; else a free name made of the picture's."""
    if arguments.output is not None:
        output = Path(arguments.output)
        find_format(output, arguments.format)
        return output
    suffix = FORMATS[arguments.format or "mp4"].suffixes[0]
    return free_path(Path(f"{Path(arguments.picture).stem}_loop{suffix}"))


def _open_pipeline(arguments: argparse.Namespace) -> LoopAnimatePipeline:
    import torch

    from ..pipeline import LoopAnimatePipeline

    name = arguments.device or _best_device()
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise LoopAnimateError(f"the device {name!r} is not at hand here; cpu always is") from error
    dtype = arguments.dtype or ("float16" if device.type == "cuda" else "float32")
    return LoopAnimatePipeline.from_bundle(
        arguments.bundle, device=device, dtype=getattr(torch, dtype)
    )


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _mask(choice: str, picture: Picture) -> Tensor | str:
    """What the pipeline takes as mask: `auto`, `none`, or `[H, W]` of the picture's own size."""
    if choice in ("auto", "none"):
        return choice
    from ..picture.images import load_picture

    mask = load_picture(choice)
    if mask.rgb.shape != picture.rgb.shape:
        raise LoopAnimateError(
            f"the mask {choice} is {mask.width_px} x {mask.height_px} pixels; it must be of the"
            f" picture's size, {picture.width_px} x {picture.height_px}"
        )
    return (mask.over((0.0, 0.0, 0.0)).mean(-1) > 0.5).float()


def _sample(
    pipeline: LoopAnimatePipeline,
    picture: Picture,
    mask: Tensor | str,
    arguments: argparse.Namespace,
) -> list[Loop]:
    """The clips of the chain, one seed after the other, prompts taking turns."""
    prompts = arguments.prompt or [""]
    with _progress(arguments.chain, arguments.quiet) as on_step, _memory_in_words():
        return [
            pipeline(
                picture,
                prompts[clip % len(prompts)],
                negative_prompt=arguments.negative,
                frames=arguments.frames,
                seed=arguments.seed + clip,
                steps=arguments.steps,
                guidance=arguments.guidance,
                image_guidance=arguments.image_guidance,
                scheduler=arguments.scheduler,
                preset="fast" if arguments.fast else "best",
                closing=arguments.closing,
                start=arguments.start,
                hold_still=arguments.hold_still,
                mask=mask,
                height_px=arguments.height,
                width_px=arguments.width,
                callback=on_step,
            )
            for clip in range(arguments.chain)
        ]


@contextmanager
def _progress(clips: int, quiet: bool) -> Iterator[Any]:
    """One bar over all steps of all clips, on terminals only; yields the pipeline's callback."""
    from tqdm import tqdm

    with tqdm(unit="step", leave=False, disable=True if quiet else None) as bar:

        def on_step(state: StepState) -> None:
            bar.total = clips * state.steps
            bar.update()

        yield on_step


@contextmanager
def _memory_in_words() -> Iterator[None]:
    import torch

    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # torch has no class of its own for a CPU that runs out of memory.
        if type(error) is RuntimeError and "allocate memory" not in str(error):
            raise
        raise LoopAnimateError(
            "the device has not enough memory for this; try --dtype float16, fewer --frames, a smaller"
            " --width and --height, or --device cpu"
        ) from error


def _report(frames: Tensor, fps: float, seed: int) -> None:
    from ..check import MIN_FRAMES, check_loop

    count, height, width, _ = frames.shape
    print(f"{count} frames of {width} x {height}, {count / fps:.1f} s at {fps:g} fps, seed {seed}")
    if count >= MIN_FRAMES:
        print(check_loop(frames, fps=fps).summary)
