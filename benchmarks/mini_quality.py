"""Does the mini model follow its prompt, on stickers of families that it was not trained on?

    python -m loopanimate_training.mini WORK --until data    # once: the sticker cache in WORK/data
    python benchmarks/mini_quality.py --data WORK/data [--bundle FILE] [--sheet PNG] [--json FILE]

Every sticker is animated with five prompts and one seed. `loopanimate_training.data.stickers.classify`
reads the motion from the frames; it knows the background, because the still is rendered here. Baselines
are three loops that ignore the prompt, and the renderer's motion through the model's VAE, which is what a
perfect denoiser would score.

    still      the picture, repeated
    ping-pong  the whole picture shifted in a random direction and back
    crossfade  the whole picture drifting in a random direction, with its end faded into its start
    renderer   the motion that the prompt describes, encoded and decoded

`v1` and `v2` are the goals for a model trained in hours on a CPU, and on a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from loopanimate_core.check.measures import LEVELS, distance, step_sizes
from loopanimate_core.encoders.vae import decode_latents, encode_frames
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write
from loopanimate_core.picture.images import save_picture
from loopanimate_core.picture.sheet import contact_sheet
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_training.alss import forward_indices, loop_indices
from loopanimate_training.data.stickers.classify import ROCKING, masks_from_background, read_motion
from loopanimate_training.data.stickers.clips import StickerClip, StickerClips
from loopanimate_training.data.stickers.emoji import EmojiCache
from loopanimate_training.data.stickers.motion import CORE_VERBS, SHIFT, STILL, Motion
from loopanimate_training.data.stickers.render import BACKGROUND_KINDS, draw_background

STRIDE, STEPS = 3, (1, 2, 3, 4)  # of the loop sampling that the mini is trained with
MODEL = "mini"
METHODS = (MODEL, "still", "ping-pong", "crossfade", "renderer")
GARBLED_MSE = 1500.0  # 16 dB: a loop that starts with another picture counts as garbled
STILL_SHARE_OF_BOBBING = 0.25
EDGE_PX = 2  # half-covered pixels around the object's mask
CHANCE = 1.0 / len(CORE_VERBS)
SHEET_COLUMNS = 10


@dataclass(frozen=True)
class LoopFigures:
    """The scores of one loop. Distances are in grey levels 0..255; None if not defined.

    Attributes:
        asked, read: the verb of the prompt, and the one that the frames show ("" for a garbled loop).
        mse_reconstruction, mse_picture: squared error of frame 0 to the still, after and before the VAE.
        seam_ratio: step from last to first frame over the median step; None for a loop without motion. A
            swing that starts at its fastest, as all verbs do, has 1.4.
        seam_jump: step from last to first frame over the largest of the four steps around it.
        motion: largest distance to frame 0; `motion_ratio` over the renderer's for that prompt.
        background_error: distance to frame 0 where the object is never seen.
        seconds: time to make it; 0 for a baseline.
    """

    sticker: str
    asked: str
    read: str
    mse_reconstruction: float
    mse_picture: float
    seam_ratio: float | None
    seam_jump: float | None
    motion: float
    motion_ratio: float | None
    background_error: float
    seconds: float = 0.0

    @property
    def obeyed(self) -> bool:
        return self.read == self.asked


@dataclass(frozen=True)
class Target:
    """One row of the table: a figure, its unit, and the goals of `v1` and `v2`."""

    title: str
    figure: Callable[[Sequence[LoopFigures]], float | None]
    unit: str = ""
    v1: str = ""
    v2: str = ""


@dataclass
class Figures:
    """All measurements: the loops by method, and what concerns all of them."""

    frames: int
    vae_psnr_db: float
    skipped: list[str] = field(default_factory=list)  # prompts whose true motion is not visible
    loops: dict[str, list[LoopFigures]] = field(default_factory=lambda: {m: [] for m in METHODS})

    def to_dict(self) -> dict[str, object]:
        """Summary and single loops, ready for JSON."""
        summary = {
            method: {target.title: target.figure(loops) for target in TARGETS}
            for method, loops in self.loops.items()
        }
        return {"chance": CHANCE, "summary": summary, **asdict(self)}

    def table(self) -> str:
        """The figures of all methods side by side, and a table of prompts and what was read."""
        head = "".join(f"{name:>11}" for name in (*METHODS, "v1", "v2"))
        lines = [f"{'':46}{head}"]
        lines.append(f"{'VAE PSNR, dB':46}{self.vae_psnr_db:11.1f}{'≥ 25':>55}{'≥ 29':>11}")
        for target in TARGETS:
            cells = [_written(target.figure(self.loops[m]), target.unit) for m in METHODS]
            cells += [target.v1, target.v2]
            lines.append(f"{target.title:46}" + "".join(f"{cell:>11}" for cell in cells))
        return "\n".join([*lines, "", *self._confusions()])

    def _confusions(self) -> Iterable[str]:
        counts = Counter((loop.asked, loop.read) for loop in self.loops[MODEL])
        yield f"{'asked of the model ↓, read →':46}" + "".join(
            f"{_short(verb):>11}" for verb in (*CORE_VERBS, "")
        )
        for asked in CORE_VERBS:
            cells = "".join(f"{counts[asked, read] or '·':>11}" for read in (*CORE_VERBS, ""))
            yield f"{asked:46}{cells}"


def evaluate(
    pipeline: LoopAnimatePipeline,
    clips: Sequence[StickerClip],
    *,
    frames: int | None = None,
    seed: int = 0,
    on_loop: Callable[[StickerClip, LoopFigures, Tensor], None] | None = None,
) -> Figures:
    """Animate the first frame of every clip by its caption, and measure that and the baselines.

    Args:
        clips: rendered clips with a motion from `CORE_VERBS`, in the bundle's picture size. Clips of one
            sticker (hexcode) must have the same still; they get the same seed.
        frames: F; by default the bundle's own.
        on_loop: called with (clip, figures, frames [F-1, H, W, 3]) for every loop of the model.
    """
    frames = frames or pipeline.bundle.config.defaults.frames
    vae = pipeline.bundle.vae
    stickers = list(dict.fromkeys(clip.emoji.hexcode for clip in clips))
    stills = torch.stack([_still_of(clip)[0] for clip in _first_of_each(clips)])
    remade = dict(zip(stickers, _through_vae(vae, stills), strict=True))
    squared_error = (torch.stack(list(remade.values())) - stills).square().mean()
    figures = Figures(frames, -10.0 * math.log10(float(squared_error)))
    for clip in tqdm(clips, desc="loops", unit="loop"):
        number = stickers.index(clip.emoji.hexcode)
        true = _true_loop(clip, frames, seed + number)
        if clip.verb == ROCKING and _read(clip, true) != ROCKING:
            figures.skipped.append(clip.caption)  # round and plain: turning it is not visible
            continue
        picture, mask = _still_of(clip)
        start = time.perf_counter()
        loop = pipeline(picture, clip.caption, mask=mask, frames=frames, seed=seed + number).frames
        seconds = time.perf_counter() - start
        made = {
            MODEL: loop,
            "still": picture.expand(frames - 1, *picture.shape),
            "ping-pong": ping_pong(picture, frames - 1, np.random.default_rng((seed, number))),
            "crossfade": crossfade(picture, frames - 1, np.random.default_rng((seed, number))),
            "renderer": _through_vae(vae, true),
        }
        for method, shown in made.items():
            spent = seconds if method == MODEL else 0.0
            measured = measure(shown, clip, remade[clip.emoji.hexcode], frames, spent)
            figures.loops[method].append(measured)
            if method == MODEL and on_loop:
                on_loop(clip, measured, loop)
    return figures


def measure(
    shown: Tensor, clip: StickerClip, remade: Tensor, frames: int, seconds: float = 0.0
) -> LoopFigures:
    """Figures of the frames that play, `shown` [F-1, H, W, 3], against the true motion of `clip`.

    `remade` [H, W, 3]: the clip's still after the VAE.
    """
    picture, _ = _still_of(clip)
    true, true_masks = clip.draw(forward_indices((frames + 1) // 2, STRIDE))
    swept = F.max_pool2d(
        true_masks.any(0).float()[None], 2 * EDGE_PX + 1, stride=1, padding=EDGE_PX
    )[0]
    background = swept < 0.5
    errors = (shown - shown[0]).abs().mean(-1)[:, background] * LEVELS
    mse_picture, mse_reconstruction = (
        float((shown[0] - still).square().mean() * LEVELS**2) for still in (picture, remade)
    )
    garbled = min(mse_picture, mse_reconstruction) > GARBLED_MSE
    motion, true_motion = _largest_distance(shown), _largest_distance(true)
    steps = step_sizes(shown)
    usual = float(steps[:-1].median())
    moving, around = clip.verb != STILL, float(steps[[-3, -2, 0, 1]].max())
    return LoopFigures(
        sticker=clip.emoji.name,
        asked=clip.verb,
        read="" if garbled else _read(clip, shown),
        mse_reconstruction=mse_reconstruction,
        mse_picture=mse_picture,
        seam_ratio=float(steps[-1]) / usual if usual > 0.0 and moving else None,
        seam_jump=float(steps[-1]) / around if around > 0.0 and moving else None,
        motion=motion,
        motion_ratio=motion / true_motion if moving else None,
        background_error=float(errors.mean()) if background.any() else 0.0,
        seconds=seconds,
    )


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


def held_out_clips(
    cache: EmojiCache,
    stickers: int,
    size_px: int,
    seed: int = 0,
    backgrounds: Sequence[str] = BACKGROUND_KINDS,
) -> list[StickerClip]:
    """Every verb for `stickers` stickers of different held-out families, on `backgrounds` in turn.

    Raises:
        LoopAnimateError: the cache has fewer such families.
    """
    source = StickerClips(cache, "held_out", size_px)
    rng = np.random.default_rng((seed, 0x100B))
    families = {cache.emoji[row].family: row for row in cache.select(True, movable=True)}
    if not 1 <= stickers <= len(families):
        raise LoopAnimateError(f"--stickers must be from 1 to {len(families)}, got {stickers}")
    clips = []
    for number, row in enumerate(rng.permutation(list(families.values()))[:stickers]):
        kind = backgrounds[number % len(backgrounds)]
        # with the size and place of a moving sticker
        placed = source.moved(rng, int(row), Motion(CORE_VERBS[0]))
        placed = replace(placed, background=draw_background(rng, kind, size_px)[0])
        clips += [
            replace(placed, caption=f"a {placed.emoji.name} {verb}", motion=Motion(verb))
            for verb in CORE_VERBS
        ]
    return clips


def _still_of(clip: StickerClip) -> tuple[Tensor, Tensor]:
    """Picture [H, W, 3] and object mask [H, W] float of the clip's first frame."""
    frames, masks = clip.draw([0])
    return frames[0], masks[0].float()


def _first_of_each(clips: Sequence[StickerClip]) -> Iterable[StickerClip]:
    return {clip.emoji.hexcode: clip for clip in reversed(clips)}.values().__reversed__()


def _true_loop(clip: StickerClip, frames: int, seed: int) -> Tensor:
    """The F-1 frames that a perfect model would play."""
    indices = loop_indices((frames + 1) // 2, STRIDE, STEPS, rng=random.Random(seed))
    return clip.draw(indices[:-1])[0]


def _read(clip: StickerClip, frames: Tensor) -> str:
    return read_motion(frames, masks_from_background(frames, clip.background)).verb


@torch.inference_mode()
def _through_vae(vae: torch.nn.Module, frames: Tensor) -> Tensor:
    return decode_latents(vae, encode_frames(vae, frames)).float().cpu()


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


def _mean(name: str) -> Callable[[Sequence[LoopFigures]], float | None]:
    return lambda loops: fmean(getattr(loop, name) for loop in loops) if loops else None


def _quantile(name: str, share: float) -> Callable[[Sequence[LoopFigures]], float | None]:
    def figure(loops: Sequence[LoopFigures]) -> float | None:
        values = [value for loop in loops if (value := getattr(loop, name)) is not None]
        return float(np.quantile(values, share)) if values else None

    return figure


def _obeyed(verb: str) -> Callable[[Sequence[LoopFigures]], float | None]:
    return lambda loops: _share(loop.obeyed for loop in loops if loop.asked == verb)


def _mean_obeyed(loops: Sequence[LoopFigures]) -> float | None:
    """Over all prompts, so that verbs with skipped prompts count less."""
    return _share(loop.obeyed for loop in loops)


def _kept_still(loops: Sequence[LoopFigures]) -> float | None:
    """Share of "staying still" loops that are read so and move less than a quarter of the bobbing."""
    bobbing = {loop.sticker: loop.motion for loop in loops if loop.asked == CORE_VERBS[0]}
    return _share(
        loop.obeyed and loop.motion < STILL_SHARE_OF_BOBBING * bobbing[loop.sticker]
        for loop in loops
        if loop.asked == STILL and loop.sticker in bobbing
    )


def _text_used(loops: Sequence[LoopFigures]) -> float | None:
    """Share of prompt pairs, for one sticker and seed, that are read differently."""
    return _share(
        first.read != second.read
        for first, second in combinations(loops, 2)
        if first.sticker == second.sticker
    )


def _share(answers: Iterable[bool]) -> float | None:
    answers = list(answers)
    return fmean(answers) if answers else None


TARGETS = (
    Target(
        "MSE of frame 0 to its reconstruction", _mean("mse_reconstruction"), "", "≤ 120", "≤ 25"
    ),
    Target("MSE of frame 0 to the picture", _mean("mse_picture"), "", "≤ 350", "≤ 110"),
    Target("seam ratio, median (1 is ideal)", _quantile("seam_ratio", 0.5), "x", "≤ 1.2", "≤ 0.8"),
    Target("seam ratio, 90 % are below", _quantile("seam_ratio", 0.9), "x"),
    Target("seam over the steps around it, median", _quantile("seam_jump", 0.5), "x"),
    Target("seam over the steps around it, 90 %", _quantile("seam_jump", 0.9), "x"),
    Target(
        "motion over the renderer's, median",
        _quantile("motion_ratio", 0.5),
        "x",
        "0.4-1.6",
        "0.7-1.3",
    ),
    Target(f"prompt obeyed (chance {CHANCE:.0%})", _mean_obeyed, "%", "≥ 65 %", "≥ 80 %"),
    *(Target(f"  {verb}", _obeyed(verb), "%") for verb in CORE_VERBS),
    Target("still: read so, under 25 % of bobbing", _kept_still, "%", "≥ 60 %", "≥ 90 %"),
    Target("other verb, other reading (same seed)", _text_used, "%", "≥ 50 %", "≥ 80 %"),
    Target("background error", _mean("background_error"), "x", "≤ 12", "≤ 5"),
    Target("seconds a loop, median", _quantile("seconds", 0.5), "s", "≤ 15", "≤ 30"),
)


def _written(value: float | None, unit: str) -> str:
    if value is None or (unit == "s" and value == 0.0):
        return "-"
    return {"%": f"{value:.0%}", "x": f"{value:.2f}", "s": f"{value:.1f}"}.get(unit, f"{value:.0f}")


def _short(verb: str) -> str:
    return verb.split()[-1 if verb == STILL else 0] if verb else "garbled"


class Sheet:
    """A picture of all loops: for each the still, some frames, the prompt and what was read."""

    BAND_PX = 14

    def __init__(self) -> None:
        self.strips: list[Tensor] = []

    def add(self, clip: StickerClip, figures: LoopFigures, frames: Tensor) -> None:
        shown = torch.linspace(0, len(frames) - 1, SHEET_COLUMNS - 1).round().long()
        still = _still_of(clip)[0][None]
        strip = contact_sheet(torch.cat([still, frames[shown]]), SHEET_COLUMNS, gap_px=2)
        band = Image.new("RGB", (strip.shape[1], self.BAND_PX), "white")
        mark = "" if figures.obeyed else ": read as " + (figures.read or "garbled")
        ImageDraw.Draw(band).text((2, 0), clip.caption + mark, fill="black" if not mark else "red")
        self.strips += [torch.from_numpy(np.array(band)).float() / 255.0, strip]

    def save(self, path: Path) -> None:
        save_picture(torch.cat(self.strips), path)


def main() -> None:
    options = parse_arguments()
    pipeline = LoopAnimatePipeline.from_bundle(options.bundle, device=options.device)
    config = pipeline.bundle.config
    if config.height_px != config.width_px:
        size = f"{config.width_px} x {config.height_px}"
        raise LoopAnimateError(f"the model's pictures must be square, got {size} pixels")
    clips = held_out_clips(
        EmojiCache(options.data),
        options.stickers,
        config.height_px,
        options.seed,
        options.backgrounds,
    )
    sheet = Sheet()
    figures = evaluate(pipeline, clips, frames=options.frames, seed=options.seed, on_loop=sheet.add)
    print(
        f"\n{options.stickers} stickers of held-out families × {len(CORE_VERBS)} verbs, "
        f"{options.frames} frames, {config.width_px} px, seed {options.seed}; "
        f"{len(figures.skipped)} prompts skipped (turning the sticker changes nothing)\n"
    )
    print(figures.table())
    if options.json:
        with atomic_write(options.json) as path:
            path.write_text(json.dumps(figures.to_dict(), indent=1), encoding="utf-8")
    if options.sheet:
        sheet.save(options.sheet)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the sticker cache")
    parser.add_argument("--bundle", type=Path, help="the model (default: the bundled mini)")
    parser.add_argument("--stickers", type=int, default=24)
    parser.add_argument("--frames", type=int, default=35)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--backgrounds", nargs="+", choices=BACKGROUND_KINDS, default=["pastel", "gradient"]
    )
    parser.add_argument("--json", type=Path, help="write all figures of all loops")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the model's loops")
    return parser.parse_args()


if __name__ == "__main__":
    main()
