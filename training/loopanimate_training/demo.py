"""A whole training in minutes on a CPU: videos, three stages with a kill in between, a bundle, a loop.

`python -m loopanimate_training.demo WORK` runs, and prints, the commands of a real training, on animations from
the package and on its pictures in motion. It starts from the bundled mini model and downloads nothing.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loopanimate_core.bundle import mini_bundle_path
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import fit_pixels, load_picture
from loopanimate_core.picture.saliency import salient_mask
from loopanimate_core.video import write_video

from .data.stickers.motion import FPS, SPAN_FRAMES, Motion
from .data.stickers.render import Placement, render_clip
from .storage.checkpoint import checkpoints

RECIPES = Path(__file__).parent / "recipes"
PICTURES = mini_bundle_path().parent / "pictures"
EMOJI_CLIPS = RECIPES / "clips"
SIZE_PX, SPRITE_PX = 96, 128
VERBS = ("bobbing up and down", "swaying left and right", "pulsing")
STEPS = {1: 15, 2: 12, 3: 12}
F = 18  # in every stage: the mini, from which they start, draws 35 frames well, and 15 or 21 badly
KILLED_STAGE = 2


def write_clips(folder: Path) -> list[Path]:
    """Write a video for each packaged picture and verb, with its caption beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    times_s = torch.arange(SPAN_FRAMES) / FPS
    for path in sorted(PICTURES.glob("*.png")):
        sprite, background = cut_out(path)
        for verb in VERBS:
            target = folder / f"{path.stem}_{verb.split()[0]}.mp4"
            written.append(target)
            if target.with_suffix(".txt").is_file():  # written last: the video is complete
                continue
            frames, _ = render_clip(
                sprite, Motion(verb), times_s, background, Placement(scale=0.75)
            )
            write_video(frames, target, fps=FPS, repeats=1)
            target.with_suffix(".txt").write_text(f"a {path.stem} {verb}\n", encoding="utf-8")
    return written


def copy_clips(folder: Path) -> list[Path]:
    """Copy the packaged animations, with their captions and masks; returns the videos."""
    for path in sorted(EMOJI_CLIPS.glob("*.*")):
        if path.suffix != ".md":
            shutil.copyfile(path, folder / path.name)
    return sorted(path for path in EMOJI_CLIPS.glob("*.mp4") if ".mask" not in path.name)


def cut_out(path: Path) -> tuple[np.ndarray, Tensor]:
    """A picture's object, `[S, S, 4]` uint8, and a plain background `[H, W, 3]` in its border's colour."""
    picture = load_picture(path)
    pixels = fit_pixels(picture.over(), SPRITE_PX, SPRITE_PX)
    alpha = picture.alpha
    if alpha is None:
        alpha = salient_mask(pixels)
    else:
        alpha = fit_pixels(alpha[..., None].expand(*alpha.shape, 3), SPRITE_PX, SPRITE_PX)[..., 0]
    rgba = torch.cat([pixels, alpha[..., None].float()], dim=-1)
    colour = torch.cat([pixels[0], pixels[-1]]).median(dim=0).values
    sprite = rgba.mul(255).round().clamp(0, 255).byte().numpy()
    return sprite, colour.expand(SIZE_PX, SIZE_PX, 3)


def train_command(work: Path, stage: int) -> list[str]:
    """The command of one stage, which starts from the run of the stage before, or from the mini model."""
    start = mini_bundle_path() if stage == 1 else work / f"stage{stage - 1}"
    settings = {
        "out": work / f"stage{stage}",
        "title": f"Demo, stage {stage}",
        "model.start": start,
        "data.path": work / "clips",
        "data.cache": work / "cache",
        "clip.f": F,
        "steps": STEPS[stage],
        "validation.every_steps": STEPS[stage],
    }
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    recipe = str(RECIPES / "demo.yaml")
    return ["-m", "loopanimate_training", "--stage", str(stage), "--config", recipe, *sets]


def run(arguments: list[str]) -> None:
    """Print a Python command and run it.

    Raises:
        LoopAnimateError: the command failed; its own output says why.
    """
    print(f"$ python {shlex.join(arguments)}", flush=True)
    if code := subprocess.run([sys.executable, *arguments], check=False).returncode:
        raise LoopAnimateError(f"the last command ended with exit code {code}")


def run_and_kill(arguments: list[str], run_folder: Path) -> None:
    """Start a training, and kill it once it has saved a checkpoint, as a power cut would.

    Raises:
        LoopAnimateError: it ended by itself before that.
    """
    print(f"$ python {shlex.join(arguments)}   # will be killed", flush=True)
    process = subprocess.Popen([sys.executable, *arguments])
    while process.poll() is None and not checkpoints(run_folder):
        time.sleep(0.2)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    code, saved = process.wait(), checkpoints(run_folder)
    if not saved:
        raise LoopAnimateError(
            f"a training ended with exit code {code} before its first checkpoint"
        )
    print(f"\nkilled; the same command resumes from {saved[-1].name}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="loopanimate-train-demo", description=__doc__)
    parser.add_argument("work", type=Path, help="folder for videos, runs and results")
    work = parser.parse_args(arguments).work.resolve()
    began = time.perf_counter()

    clips = write_clips(work / "clips") + copy_clips(work / "clips")
    print(f"{len(clips)} videos in {work / 'clips'}", flush=True)
    for stage in STEPS:
        command = train_command(work, stage)
        if stage == KILLED_STAGE and not checkpoints(work / f"stage{stage}"):
            run_and_kill(command, work / f"stage{stage}")
        run(command)
    last, bundle, loop = work / f"stage{max(STEPS)}", work / "demo.safetensors", work / "ghost.mp4"
    run(["-m", "loopanimate_training", "export", str(last), "-o", str(bundle)])
    picture = str(PICTURES / "ghost.png")
    animate = [
        "-m",
        "loopanimate_core",
        "animate",
        picture,
        "--bundle",
        str(bundle),
        "-o",
        str(loop),
    ]
    options = ["--prompt", "a ghost bobbing up and down", "--detail", "off"]  # as the model draws
    run([*animate, *options, "--sheet", str(work / "ghost.png"), "--force"])
    minutes = (time.perf_counter() - began) / 60
    print(f"{minutes:.1f} minutes; {last / 'report.html'} is the report of the last stage")


if __name__ == "__main__":
    try:
        main()
    except LoopAnimateError as error:
        sys.exit(str(error))
