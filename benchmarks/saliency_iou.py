"""How well does `salient_mask` find stickers without a network? Mean intersection over union (IoU).

    python benchmarks/saliency_iou.py FOLDER_OF_RGBA_PNGS

Every sticker is placed on four kinds of background, at two sizes and three positions; the true mask is
its alpha above 0.5. For comparison: plain GrabCut from a rectangle 8 % inside the border.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from loopanimate_core.picture.images import Picture, fit_mask, fit_picture, load_picture
from loopanimate_core.picture.saliency import salient_mask

SIDE_PX = 512
PLACES = ((0.0, 0.0), (-0.12, 0.08), (0.1, -0.1))
SHARES = (0.45, 0.7)


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
) -> tuple[torch.Tensor, torch.Tensor]:
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


def rectangle_grabcut(picture: torch.Tensor) -> torch.Tensor:
    small = cv2.resize((picture.numpy()[..., ::-1] * 255).astype(np.uint8), (320, 320))
    labels, models = np.zeros((320, 320), np.uint8), (np.zeros((1, 65)), np.zeros((1, 65)))
    cv2.setRNGSeed(0)
    cv2.grabCut(small, labels, (26, 26, 268, 268), *models, 5, cv2.GC_INIT_WITH_RECT)
    return fit_mask(torch.from_numpy((labels % 2).astype(np.float32)), SIDE_PX, SIDE_PX)


def iou(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found * true).sum() / torch.maximum(found, true).sum())


def main(folder: Path) -> None:
    methods = {"salient_mask": salient_mask, "GrabCut from a rectangle": rectangle_grabcut}
    scores = {name: defaultdict(list) for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    count = 0
    for index, path in enumerate(sorted(folder.glob("*.png"))):
        sticker = load_picture(path)
        generator = torch.Generator().manual_seed(index)
        for kind in ("pastel", "gradient", "soft noise", "busy"):
            share, place = SHARES[index % 2], PLACES[index % 3]
            picture, true = compose(sticker, background(kind, generator), share, place)
            count += 1
            for name, method in methods.items():
                start = time.perf_counter()
                scores[name][kind].append(iou(method(picture), true))
                seconds[name] += time.perf_counter() - start
    print(f"{'':26s}" + "".join(f"{kind:>22s}" for kind in scores["salient_mask"]) + "   s each")
    for name, kinds in scores.items():
        cells = [
            f"{np.mean(v):.3f} ({np.mean(np.array(v) > 0.8):.0%} > .8)" for v in kinds.values()
        ]
        print(
            f"{name:26s}" + "".join(f"{c:>22s}" for c in cells) + f"   {seconds[name] / count:.3f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
