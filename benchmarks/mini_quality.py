"""Does the mini model follow its prompt, on stickers and photographs that it was not trained on?

    python -m loopanimate_training.mini WORK --until data    # once: stickers and cut-outs in WORK/data
    python benchmarks/mini_quality.py --data WORK/data [--bundle FILE] [--sheet PNG] [--json FILE]

Every subject is animated with one prompt a verb and one seed. `loopanimate_training.data.stickers.classify` reads
the motion from the frames of the way there; it knows object and background, because the still is drawn
here, and sees both through the model's VAE. The baselines:

    renderer   the motion that the prompt describes, encoded and decoded: what a perfect denoiser would score
               (of the first --renderer-subjects of each group, because reading takes time)
    still      the picture, repeated
    ping-pong  the whole picture shifted in a random direction and back
    crossfade  the whole picture drifting in a random direction, with its end faded into its start

The last three ignore the prompt: each is made and read once a subject.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from held_out import (
    DRAWN_BACKGROUNDS,
    ON_PHOTOGRAPHS,
    PHOTOGRAPHS,
    STICKERS,
    held_out_clips,
    open_caches,
)
from mini_figures import GARBLED, MODEL, RENDERER, UNMOVED, Figures, LoopFigures, Sheet
from torch import Tensor
from tqdm import tqdm

from loopanimate_core.check.measures import LEVELS, distance, step_sizes
from loopanimate_core.encoders.vae import decode_latents, encode_frames
from loopanimate_core.files import atomic_write
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_core.schedule import SCHEDULERS
from loopanimate_core.settings import PRESETS
from loopanimate_training.alss import forward_indices, loop_indices
from loopanimate_training.data.stickers.classify import MotionReading, read_motion
from loopanimate_training.data.stickers.clips import DrawnClip
from loopanimate_training.data.stickers.motion import (
    CORE_VERBS,
    FPS,
    SHIFT,
    STILL,
    VERBS,
    Motion,
    deformation_at,
)
from loopanimate_training.data.stickers.render import BACKGROUND_KINDS, Scene

STRIDE, STEPS = 3, (1, 2, 3, 4)  # of the loop sampling that the mini is trained with
GARBLED_MSE = 1500.0  # 16 dB: a loop that starts with another picture counts as garbled
EDGE_PX = 2  # half-covered pixels around the object's mask
RENDERER_SUBJECTS = 6


@dataclass
class Subject:
    """One still and the clips that start from it."""

    group: str
    seed: int
    clips: Sequence[DrawnClip]
    remade: Scene
    """The still after the model's VAE."""

    @property
    def scene(self) -> Scene:
        """The still as it is drawn."""
        return self.clips[0].scene

    @cached_property
    def bobbing(self) -> float:
        """The largest distance to frame 0 that the first verb draws."""
        times_s = torch.tensor(forward_indices(18, STRIDE)) / FPS
        return _largest_distance(self.scene.draw(deformation_at(Motion(CORE_VERBS[0]), times_s))[0])


def evaluate(
    pipeline: LoopAnimatePipeline,
    clips: Mapping[str, Sequence[DrawnClip]],
    *,
    frames: int | None = None,
    seed: int = 0,
    renderer_subjects: int = RENDERER_SUBJECTS,
    on_loop: Callable[[DrawnClip, LoopFigures, Tensor], None] | None = None,
    **sampling: Any,
) -> Figures:
    """Animate the first frame of every clip by its caption, and measure that and the baselines.

    Args:
        clips: by group; drawn clips with a motion, in the model's picture size, those of one subject together
            and with the same still, as from `held_out_clips`. The loops of a subject get the same seed.
        frames: F; by default the bundle's own.
        renderer_subjects: of each group, for how many the renderer's own frames are measured.
        on_loop: called with (clip, figures, frames [F-1, H, W, 3]) for every loop of the model.
        sampling: settings of the pipeline, such as `steps`, `scheduler`, `guidance` and `preset`.
    """
    frames = frames or pipeline.bundle.config.defaults.frames
    vae = pipeline.bundle.vae
    verbs = dict.fromkeys(clip.verb for own in clips.values() for clip in own)
    figures = Figures(frames, tuple(verbs), skipped={group: [] for group in clips})
    bar = tqdm(total=sum(map(len, clips.values())), desc="loops", unit="loop")
    for group, own in clips.items():
        subjects = _subjects(group, own, vae, seed)
        squared = [(s.remade.still()[0] - s.scene.still()[0]).square().mean() for s in subjects]
        figures.vae_psnr_db[group] = -10.0 * math.log10(float(torch.stack(squared).mean()))
        for number, subject in enumerate(subjects):
            unmoved = _unmoved(subject, frames)
            for clip in subject.clips:
                bar.update()
                if not _is_visible(clip, frames):
                    figures.skipped[group].append(clip.caption)
                    continue
                measured, loop = _animate(pipeline, subject, clip, frames, sampling)
                figures.loops[MODEL].append(measured)
                if on_loop:
                    on_loop(clip, measured, loop)
                for name, (shown, reading) in unmoved.items():
                    figures.loops[name].append(measure(shown, subject, clip, frames, reading))
                if number < renderer_subjects:
                    shown = _through_vae(vae, _true_loop(clip, frames, subject.seed))
                    figures.loops[RENDERER].append(measure(shown, subject, clip, frames))
    return figures


def _animate(
    pipeline: LoopAnimatePipeline,
    subject: Subject,
    clip: DrawnClip,
    frames: int,
    sampling: Mapping[str, Any],
) -> tuple[LoopFigures, Tensor]:
    picture, mask = subject.scene.still()
    start = time.perf_counter()
    loop = pipeline(
        picture, clip.caption, mask=mask.float(), frames=frames, seed=subject.seed, **sampling
    ).frames
    seconds = time.perf_counter() - start
    return measure(loop, subject, clip, frames, seconds=seconds), loop


def measure(
    shown: Tensor,
    subject: Subject,
    clip: DrawnClip,
    frames: int,
    reading: MotionReading | None = None,
    seconds: float = 0.0,
) -> LoopFigures:
    """Figures of the frames that play, `shown` [F-1, H, W, 3], against the true motion of `clip`.

    `reading`: what the frames show, if it is known.
    """
    true, true_masks = clip.draw(forward_indices((frames + 1) // 2, STRIDE))
    swept = F.max_pool2d(
        true_masks.any(0).float()[None], 2 * EDGE_PX + 1, stride=1, padding=EDGE_PX
    )[0]
    outside = swept < 0.5
    errors = (shown - shown[0]).abs().mean(-1)[:, outside] * LEVELS
    mse_picture, mse_reconstruction = (
        float((shown[0] - scene.still()[0]).square().mean() * LEVELS**2)
        for scene in (subject.scene, subject.remade)
    )
    garbled = min(mse_picture, mse_reconstruction) > GARBLED_MSE
    reading = reading or read_loop(shown, subject.remade, frames)
    moving, steps, motion = clip.verb != STILL, step_sizes(shown), _largest_distance(shown)
    around = float(steps[[-3, -2, 0, 1]].max())
    return LoopFigures(
        group=subject.group,
        subject=clip.subject,
        asked=clip.verb,
        read=GARBLED if garbled else reading.verb,
        added="" if garbled else reading.second_verb,
        strength=reading.strength,
        mse_reconstruction=mse_reconstruction,
        mse_picture=mse_picture,
        seam_jump=float(steps[-1]) / around if around > 0.0 and moving else None,
        motion=motion,
        motion_ratio=motion / (_largest_distance(true) if moving else subject.bobbing),
        outside_error=float(errors.mean()) if outside.any() else 0.0,
        seconds=seconds,
    )


def read_loop(shown: Tensor, scene: Scene, frames: int) -> MotionReading:
    """The motion of a loop's way there; of F frames, `shown` are the first F-1 or fewer."""
    there = forward_indices((frames + 1) // 2, STRIDE)
    return read_motion(shown[: len(there)], scene, there)


def ping_pong(picture: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """[count, H, W, 3]: the picture shifted along a random line and back at constant speed."""
    way = 1.0 - (torch.arange(count) * (2.0 / count) - 1.0).abs()
    return _shifted(picture, way, rng)


def crossfade(picture: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """[count, H, W, 3]: the picture drifting along a random line; the last quarter fades into the frames
    that would lead to frame 0."""
    times = torch.arange(count)
    fade = ((times - 0.75 * count) / (0.25 * count)).clamp(min=0.0)[:, None, None, None]
    state = rng.bit_generator.state
    drift = _shifted(picture, times / count, rng)
    rng.bit_generator.state = state  # the same line, one loop earlier
    return torch.lerp(drift, _shifted(picture, times / count - 1.0, rng), fade)


def _subjects(
    group: str, clips: Sequence[DrawnClip], vae: torch.nn.Module, seed: int
) -> list[Subject]:
    by_subject: dict[str, list[DrawnClip]] = {}
    for clip in clips:
        by_subject.setdefault(clip.subject, []).append(clip)
    return [
        Subject(group, seed + number, own, through_vae(own[0].scene, vae))
        for number, own in enumerate(by_subject.values())
    ]


def through_vae(scene: Scene, vae: torch.nn.Module) -> Scene:
    """The scene with the colours that the VAE's decoder gives its still and its background."""
    still, background = _through_vae(vae, torch.stack([scene.still()[0], scene.background]))
    alpha = scene.layer[3:]
    return Scene(torch.cat([still.permute(2, 0, 1) * alpha, alpha]), background)


def _unmoved(subject: Subject, frames: int) -> dict[str, tuple[Tensor, MotionReading]]:
    """The loops that ignore the prompt, and what they show."""
    picture, count = subject.scene.still()[0], frames - 1
    shown = (
        picture.expand(count, *picture.shape),
        ping_pong(picture, count, np.random.default_rng(subject.seed)),
        crossfade(picture, count, np.random.default_rng(subject.seed)),
    )
    return {
        name: (loop, read_loop(loop, subject.scene, frames))
        for name, loop in zip(UNMOVED, shown, strict=True)
    }


def _is_visible(clip: DrawnClip, frames: int) -> bool:
    """Whether the drawn motion is read as what it is: a round plain thing that turns is not."""
    there = forward_indices((frames + 1) // 2, STRIDE)
    return read_motion(clip.draw(there)[0], clip.scene, there).verb == clip.verb


def _true_loop(clip: DrawnClip, frames: int, seed: int) -> Tensor:
    """The F-1 frames that a perfect model would play."""
    indices = loop_indices((frames + 1) // 2, STRIDE, STEPS, rng=random.Random(seed))
    return clip.draw(indices[:-1])[0]


@torch.inference_mode()
def _through_vae(vae: torch.nn.Module, frames: Tensor) -> Tensor:
    device = next(vae.parameters()).device
    return decode_latents(vae, encode_frames(vae, frames.to(device))).float().cpu().clone()


def _largest_distance(frames: Tensor) -> float:
    return max(float(distance(frame, frames[0])) for frame in frames)


def _shifted(picture: Tensor, way: Tensor, rng: np.random.Generator) -> Tensor:
    """Frames [n, H, W, 3] at positions `way` [n] on a random line as long as a strong motion."""
    angle, length = rng.uniform(0.0, 2.0 * math.pi), SHIFT * rng.uniform(1.0, 3.0)
    shift = torch.tensor([math.cos(angle), math.sin(angle)]) * length
    grid = F.affine_grid(torch.eye(2, 3)[None], [1, 3, *picture.shape[:2]], align_corners=False)
    grid = grid - (way[:, None] * shift)[:, None, None]
    pictures = picture.permute(2, 0, 1).expand(len(way), -1, -1, -1)
    moved = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return moved.permute(0, 2, 3, 1)


def main() -> None:
    options = parse_arguments()
    pipeline = LoopAnimatePipeline.from_bundle(options.bundle, device=options.device)
    config = pipeline.bundle.config
    clips = held_out_clips(
        *open_caches(options.data),
        {
            STICKERS: options.stickers,
            ON_PHOTOGRAPHS: options.on_photographs,
            PHOTOGRAPHS: options.photographs,
        },
        config.height_px,
        config.width_px,
        verbs=options.verbs,
        seed=options.seed,
        backgrounds=options.backgrounds,
    )
    sheet = Sheet()
    settings = ("steps", "scheduler", "guidance", "preset")
    sampling = {name: getattr(options, name) for name in settings if getattr(options, name)}
    figures = evaluate(
        pipeline,
        clips,
        frames=options.frames,
        seed=options.seed,
        renderer_subjects=options.renderer_subjects,
        on_loop=sheet.add,
        **sampling,
    )
    print("\n" + _heading(figures, config.width_px, options.seed, sampling) + "\n")
    print(figures.table())
    if options.json:
        with atomic_write(options.json) as path:
            path.write_text(json.dumps(figures.to_dict(), indent=1), encoding="utf-8")
    if options.sheet:
        sheet.save(options.sheet)


def _heading(figures: Figures, width_px: int, seed: int, sampling: Mapping[str, Any]) -> str:
    words = " ".join(f"{name} {value}" for name, value in sampling.items())
    skipped = ", ".join(f"{len(own)} {group}" for group, own in figures.skipped.items())
    return (
        f"held-out subjects × {len(figures.verbs)} verbs (chance {1 / len(figures.verbs):.0%}), "
        f"{figures.frames} frames, {width_px} px, seed {seed}, {words or 'the model’s own settings'}\n"
        f"prompts skipped because the drawn motion does not show: {skipped}"
    )


def parse_arguments(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of the sticker cache and `cutouts`")
    add("--bundle", type=Path, help="the model (default: the bundled mini)")
    add("--stickers", type=int, default=24, help="subjects over drawn backgrounds")
    add("--on-photographs", type=int, default=12, help="stickers over photographs")
    add("--photographs", type=int, default=24, help="parts cut out of photographs")
    add("--verbs", nargs="+", choices=VERBS, default=list(VERBS), metavar="VERB")
    add("--renderer-subjects", type=int, default=RENDERER_SUBJECTS, help="of each group")
    add("--frames", type=int, help="default: the model's own, as for the next four")
    add("--steps", type=int)
    add("--scheduler", choices=SCHEDULERS)
    add("--guidance", type=float)
    add("--preset", choices=PRESETS)
    add("--seed", type=int, default=0)
    add("--device", default="cpu")
    add("--backgrounds", nargs="+", choices=BACKGROUND_KINDS, default=list(DRAWN_BACKGROUNDS))
    add("--json", type=Path, help="write all figures of all loops")
    add("--sheet", type=Path, help="write a contact sheet of the model's loops")
    return parser.parse_args(None if arguments is None else list(arguments))


if __name__ == "__main__":
    main()
