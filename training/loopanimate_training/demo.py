"""The whole way in minutes on a CPU: videos, three stages with a kill in between, a bundle, a loop.

`python -m loopanimate_training.demo WORK` runs, and prints, the commands that a real training would, on
designers' animations that lie in the package and on its pictures, moved. It starts from the bundled mini
model and downloads nothing.
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
STEPS = {1: 30, 2: 20, 3: 15}
KILLED_STAGE = 2


def write_clips(folder: Path) -> list[Path]:
    """Write a video of each packaged picture and verb, with its caption beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    times_s = torch.arange(SPAN_FRAMES) / FPS
    for path in sorted(PICTURES.glob("*.png")):
        sprite, background = cut_out(path)
        for verb in VERBS:
            target = folder / f"{path.stem}_{verb.split()[0]}.mp4"
            written.append(target)
            if target.with_suffix(".txt").is_file():  # written last
                continue
            frames, _ = render_clip(
                sprite, Motion(verb), times_s, background, Placement(scale=0.75), SIZE_PX
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
    """A picture's object, `[S, S, 4]` uint8, and a plain background `[H, W, 3]` of its border's colour."""
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
    """The command of one stage: the earlier stage's run, or the mini, is its start."""
    start = mini_bundle_path() if stage == 1 else work / f"stage{stage - 1}"
    settings = {
        "out": work / f"stage{stage}",
        "title": f"Demo, stage {stage}",
        "model.start": start,
        "data.path": work / "clips",
        "data.cache": work / "cache",
        "steps": STEPS[stage],
        "sheets.every_steps": STEPS[stage],
    }
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    recipe = str(RECIPES / "demo.yaml")
    return ["-m", "loopanimate_training", "--stage", str(stage), "--config", recipe, *sets]


def run(arguments: list[str]) -> None:
    """Run a Python command, and show it.

    Raises:
        LoopAnimateError: it failed; what it printed says why.
    """
    print(f"$ python {shlex.join(arguments)}", flush=True)
    if code := subprocess.run([sys.executable, *arguments], check=False).returncode:
        raise LoopAnimateError(f"the last command ended with exit code {code}")


def run_and_kill(arguments: list[str], run_folder: Path) -> None:
    """Start a training and kill it, as a power cut would, once it has saved a checkpoint.

    Raises:
        LoopAnimateError: it ended by itself before.
    """
    print(f"$ python {shlex.join(arguments)}   # killed on the way", flush=True)
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
    print(f"\nkilled; {saved[-1].name} is there, the same command goes on", flush=True)


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
    run(["-m", "loopanimate_core", "animate", picture, "--bundle", str(bundle), "--prompt",
         "a ghost bobbing up and down", "-o", str(loop), "--sheet", str(work / "ghost.png"), "--force"])  # fmt: skip
    minutes = (time.perf_counter() - began) / 60
    print(f"{minutes:.1f} minutes; {last / 'report.html'} tells of the last stage")


if __name__ == "__main__":
    try:
        main()
    except LoopAnimateError as error:
        sys.exit(str(error))
