"""Do photographs move well? Random held-out photographs, each with a random prompt, for people to judge.

    python -m loopanimate_training.mini WORK --until data    # once: the photographs in WORK/photographs
    python benchmarks/photograph_sheet.py WORK/photographs --sheet SHEET.jpg [--showable]

Each is masked by `salient_mask`, animated and redrawn in its own pixels (detail transfer), as `loopanimate animate`
does it. Licences and authors are printed. A row of the sheet is the picture with its mask, then frames round the loop; the model's own frames are small in the corners.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from loopanimate_core.picture.images import fit_pixels, load_picture, save_picture
from loopanimate_core.picture.saliency import salient_mask
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_core.settings import PRESETS
from loopanimate_training.data.photographs import split
from loopanimate_training.data.photographs.packages import MANIFEST
from loopanimate_training.data.stickers.motion import MOVING_VERBS

SHOWABLE = ("CC-BY-", "CC0", "public-domain", "BSD-3-Clause", "Expat")  # beginnings; not CC-BY-SA
TALL_PX, FRAMES_SHOWN, MASK_PX = 120, 5, 384


@dataclass(frozen=True)
class Row:
    """One photograph, its prompt, and what came of it."""

    title: str
    tiles: list[Tensor]


def is_showable(licence: str) -> bool:
    """Whether pictures under a licence may be shown in this project's documentation."""
    return licence.startswith(SHOWABLE) and not licence.startswith("CC-BY-SA")


def choose(folder: Path, count: int, seed: int, showable: bool) -> list[tuple[dict[str, str], str]]:
    """`count` held-out photographs of different subjects, as rows of the manifest, each with a verb."""
    rows = json.loads((folder / MANIFEST).read_text())
    shown = [
        row
        for row in rows
        if row["file"].startswith("photographs/")
        and (is_showable(row["licence"]) or not showable)
        and split.is_held_out(Path(row["file"]).name)
    ]
    rng = random.Random(seed)
    rng.shuffle(shown)
    by_subject = {split.subject_of(Path(row["file"]).name): row for row in shown}
    verbs = [*MOVING_VERBS] * (count // len(MOVING_VERBS) + 1)
    rng.shuffle(verbs)
    return list(zip(list(by_subject.values())[:count], verbs, strict=False))


def animate(pipeline: LoopAnimatePipeline, path: Path, verb: str, preset: str) -> Row:
    """The row of one photograph."""
    picture = load_picture(path)
    scale = MASK_PX / max(picture.height_px, picture.width_px)
    tall, wide = round(picture.height_px * scale), round(picture.width_px * scale)
    mask = salient_mask(fit_pixels(picture.rgb, tall, wide))
    drawn = pipeline(picture, f"a photo {verb}", mask=mask, preset=preset)
    loop = drawn.frames_at("original")
    frames = list(loop)
    wide = round(TALL_PX * frames[0].shape[1] / frames[0].shape[0])
    still = fit_pixels(picture.rgb, TALL_PX, wide)
    outside = fit_pixels(mask[..., None], TALL_PX, wide) < 0.5
    tiles = [torch.where(outside, 0.35 * still, still)]
    for number in range(FRAMES_SHOWN):
        share = (number + 0.5) / FRAMES_SHOWN  # of the loop
        tile = fit_pixels(frames[int(share * len(frames))], TALL_PX, wide)
        raw = drawn.frames[int(share * len(drawn.frames))]
        small = fit_pixels(raw, TALL_PX // 3, round(TALL_PX / 3 * raw.shape[1] / raw.shape[0]))
        tile[-small.shape[0] :, -small.shape[1] :] = small
        tiles.append(tile)
    model = loop.motion.object.model if loop.motion else "off"
    return Row(f"{verb} ({loop.mode}, {model})", tiles)


def sheet(rows: Iterable[Row]) -> Tensor:
    """Two rows beside each other, each under its title: [H, W, 3] in 0..1."""
    strips = []
    for row in rows:
        strip = torch.cat(row.tiles, 1)
        picture = Image.new("RGB", (strip.shape[1], 18), "white")
        ImageDraw.Draw(picture).text((4, 3), row.title, fill="black")
        title = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        strips.append(torch.cat([title.reshape(18, strip.shape[1], 3) / 255.0, strip]))
    wide = max(strip.shape[1] for strip in strips)
    padded = [
        torch.nn.functional.pad(strip, (0, 0, 0, wide - strip.shape[1]), value=1.0)
        for strip in strips
    ]
    half = (len(padded) + 1) // 2
    padded += [torch.ones_like(padded[0])] * (2 * half - len(padded))
    return torch.cat([torch.cat(padded[:half]), torch.cat(padded[half:])], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("photographs", type=Path, help="folder of photographs with its manifest.json")
    add("--sheet", type=Path, required=True)
    add("--bundle", type=Path, help="the model (default: the bundled mini)")
    add("--count", type=int, default=24)
    add("--showable", action="store_true", help="only under licences that allow it, for docs")
    add("--preset", choices=PRESETS, default="best")
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    pipeline = LoopAnimatePipeline.from_bundle(options.bundle)
    rows = []
    for entry, verb in tqdm(
        choose(options.photographs, options.count, options.seed, options.showable)
    ):
        row = animate(pipeline, options.photographs / entry["file"], verb, options.preset)
        print(
            f"{len(rows) + 1:2} {row.title}: {entry['file']}, {entry['licence']}, {entry['author']}"
        )
        rows.append(row)
        save_picture(sheet(rows), options.sheet)


if __name__ == "__main__":
    main()
