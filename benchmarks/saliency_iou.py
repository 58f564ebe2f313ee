"""How well does `salient_mask` find objects? Mean intersection over union (IoU) on held-out pictures.

    python benchmarks/saliency_iou.py WORK --stickers CACHE [--sheet masks.jpg]
    python benchmarks/saliency_iou.py WORK --stickers CACHE --network isnet.onnx --count 2 --only-drawn

WORK is the folder of `python -m loopanimate_training.salient WORK`. First table: stickers of held-out
families, each on four kinds of drawn background and on a held-out photograph; the true mask is their
alpha above 0.5. Second table: held-out photographs; the reference is the label of IS-Net above 0.5, where
it is neither empty nor uncertain.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from loopanimate_core.picture.images import Picture, fit_picture, load_picture
from loopanimate_core.picture.saliency import BUNDLED_NETWORK, mask_preview, salient_mask
from loopanimate_core.picture.salient_network import onnx_scores
from loopanimate_training.data.photographs.split import is_held_out
from loopanimate_training.data.stickers.emoji import EmojiCache
from loopanimate_training.salient.examples import load_labels

SIDE_PX = 512
STICKERS = 40
PLACES = ((0.0, 0.0), (-0.12, 0.08), (0.1, -0.1))
SHARES = (0.45, 0.7)
DRAWN = ("pastel", "gradient", "soft noise", "busy")
SHEET_PICTURES, SHEET_COLUMNS, SHEET_PX = 24, 6, 200

Sample = tuple[torch.Tensor, torch.Tensor]  # picture [H, W, 3] and mask [H, W]

METHODS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "salient_mask": salient_mask,
    "the network alone": lambda picture: (
        onnx_scores(picture, BUNDLED_NETWORK, "half") > 0.5
    ).float(),
    "GrabCut": lambda picture: salient_mask(picture, method="grabcut"),
}


def background(kind: str, generator: torch.Generator) -> torch.Tensor:
    """`[512, 512, 3]`: plain pastel, linear gradient, soft colour noise, or a blurred busy scene."""
    if kind == "pastel":
        return (0.7 + 0.3 * torch.rand(3, generator=generator)).expand(SIDE_PX, SIDE_PX, 3)
    cells = {"gradient": 2, "soft noise": 4, "busy": 24}[kind]
    spread = {"gradient": 0.6, "soft noise": 0.5, "busy": 0.9}[kind]
    seeds = (1 - spread) + spread * torch.rand(1, 3, cells, cells, generator=generator)
    if kind == "gradient":
        seeds[:, :, :, 1] = seeds[:, :, :, 0]  # from top to bottom
    full = F.interpolate(seeds, size=(SIDE_PX, SIDE_PX), mode="bicubic", align_corners=True)
    return full[0].permute(1, 2, 0).clamp(0, 1)


def compose(
    sticker: Picture, canvas: torch.Tensor, share: float, place: tuple[float, float]
) -> Sample:
    """The sticker on the canvas and its true mask."""
    side = round(SIDE_PX * share / 8) * 8
    assert sticker.alpha is not None
    alpha = fit_picture(sticker.alpha[..., None].expand(-1, -1, 3), side, side)[..., :1]
    rgb = fit_picture(Picture(sticker.rgb, sticker.alpha), side, side, background=(0, 0, 0))
    top, left = (round((SIDE_PX - side) / 2 + offset * SIDE_PX) for offset in place)
    picture, mask = canvas.clone(), torch.zeros(SIDE_PX, SIDE_PX)
    window = (slice(top, top + side), slice(left, left + side))
    picture[window] = picture[window] * (1 - alpha) + rgb
    mask[window] = (alpha[..., 0] > 0.5).float()
    return picture, mask


def stickers_on(
    kind: str, cache: EmojiCache, photographs: list[Path], count: int
) -> Iterator[Sample]:
    """Every n-th held-out sticker on one kind of background."""
    rows = cache.select(True, movable=True)
    rows = rows[:: max(1, len(rows) // count)][:count]
    for index, row in enumerate(rows):
        rgba = torch.from_numpy(np.array(cache.sprites[row])).float() / 255
        sticker = Picture(rgba[..., :3], rgba[..., 3])
        if kind == "photograph":
            path = photographs[index * len(photographs) // len(rows)]
            canvas = fit_picture(load_picture(path), SIDE_PX, SIDE_PX)
        else:
            canvas = background(kind, torch.Generator().manual_seed(index))
        yield compose(sticker, canvas, SHARES[index % 2], PLACES[index % 3])


def labelled(labels: Path) -> Iterator[Sample]:
    """Held-out photographs with the stronger network's masks."""
    for picture, score in load_labels(labels, held_out=True):
        yield torch.from_numpy(picture / 255.0).float(), torch.from_numpy((score > 127) * 1.0)


def iou(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found * true).sum() / torch.maximum(found, true).sum())


def measure(samples: Iterator[Sample]) -> dict[str, list[tuple[float, float]]]:
    """For every method, IoU and seconds of every sample."""
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
    for picture, true in samples:
        for name, method in METHODS.items():
            start = time.perf_counter()
            mask = method(picture)
            results[name].append((iou(mask, true), time.perf_counter() - start))
    return results


def print_row(kind: str, results: dict[str, list[tuple[float, float]]]) -> None:
    count = len(next(iter(results.values())))
    cells = []
    for rows in results.values():
        scores, seconds = np.array(rows).T
        cells.append(
            f"{scores.mean():.3f} ({(scores > 0.8).mean():.0%} > .8), {np.median(seconds):.2f} s"
        )
    print(f"| {kind} ({count}) | " + " | ".join(cells) + " |")


def save_sheet(photographs: list[Path], path: Path) -> None:
    """Photographs and, below each, the same with everything outside its mask dark and grey."""
    rows = -(-SHEET_PICTURES // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * SHEET_PX, 2 * rows * SHEET_PX), "white")
    chosen = photographs[:: max(1, len(photographs) // SHEET_PICTURES)][:SHEET_PICTURES]
    for index, photograph in enumerate(chosen):
        picture = load_picture(photograph).over()
        preview = mask_preview(picture[None], salient_mask(picture)[None])[0]
        for below, pixels in enumerate((picture, preview)):
            image = Image.fromarray((pixels * 255).round().byte().numpy())
            image.thumbnail((SHEET_PX - 4, SHEET_PX - 4))
            place = (index % SHEET_COLUMNS, 2 * (index // SHEET_COLUMNS) + below)
            sheet.paste(image, (place[0] * SHEET_PX, place[1] * SHEET_PX))
    sheet.save(path, quality=88)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--stickers", type=Path, help="sticker cache (default: WORK/data)")
    parser.add_argument(
        "--network", type=Path, help="a network of yours (ONNX) beside the package's"
    )
    parser.add_argument("--count", type=int, default=STICKERS, help="stickers per background")
    parser.add_argument("--only-drawn", action="store_true", help="no photographs")
    parser.add_argument("--sheet", type=Path, help="also write a sheet of 24 masked photographs")
    options = parser.parse_args()
    cache = EmojiCache(options.stickers or options.work / "data")
    photographs = [
        path
        for path in sorted((options.work / "photographs" / "photographs").rglob("*.jpg"))
        if is_held_out(path.stem)
    ]
    if (network := options.network) is not None:
        METHODS[network.name] = lambda picture: salient_mask(picture, model_path=network)
    print("| background | " + " | ".join(METHODS) + " |")
    for kind in DRAWN if options.only_drawn else (*DRAWN, "photograph"):
        found = measure(stickers_on(kind, cache, photographs, options.count))
        print_row(f"sticker on {kind}", found)
    if not options.only_drawn:
        print_row("photograph", measure(labelled(options.work / "labels")))
    if options.sheet:
        save_sheet(photographs, options.sheet)


if __name__ == "__main__":
    main()
