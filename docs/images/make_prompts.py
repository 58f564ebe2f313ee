"""Regenerate docs/images/prompts.webp: one sticker, moved by every word that the bundled mini knows.

The model's own frames are small in the corners.

python docs/images/make_prompts.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from loopanimate_core.picture.images import fit_pixels, load_picture, to_uint8
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_training.data.stickers.motion import MOVING_VERBS

HERE = Path(__file__).parent
STICKER, NAME = (
    HERE.parents[1] / "loopanimate_core" / "data" / "pictures" / "toadstool.png",
    "mushroom",
)
TILE_PX, RAW_PX, TITLE_PX, COLUMNS, FPS = 132, 44, 16, 4, 12.0


def tile(pipeline: LoopAnimatePipeline, verb: str) -> Tensor:
    """[n, TILE_PX, TILE_PX, 3]: the loop of one word."""
    drawn = pipeline(load_picture(STICKER), f"a {NAME} {verb}")
    frames = torch.stack(list(drawn.frames_at(f"{TILE_PX}x{TILE_PX}", fps=FPS)))
    for number, frame in enumerate(frames):
        raw = drawn.frames[number * len(drawn.frames) // len(frames)]
        frame[-RAW_PX:, -RAW_PX:] = fit_pixels(raw, RAW_PX, RAW_PX)
    return frames


def titled(frames: Tensor, title: str) -> Tensor:
    """The frames under their title."""
    head = Image.new("RGB", (frames.shape[2], TITLE_PX), "white")
    ImageDraw.Draw(head).text((4, 2), title, fill="black")
    pixels = torch.frombuffer(bytearray(head.tobytes()), dtype=torch.uint8).float() / 255.0
    row = pixels.reshape(1, TITLE_PX, -1, 3).expand(len(frames), -1, -1, -1)
    return torch.cat([row, frames], 1)


def main() -> None:
    pipeline = LoopAnimatePipeline.from_bundle()
    tiles = [titled(tile(pipeline, verb), verb) for verb in MOVING_VERBS]
    count = min(len(each) for each in tiles)
    rows = [
        torch.cat([each[:count] for each in tiles[start : start + COLUMNS]], 2)
        for start in range(0, len(tiles), COLUMNS)
    ]
    pictures = [Image.fromarray(frame.numpy()) for frame in to_uint8(torch.cat(rows, 1))]
    pictures[0].save(
        HERE / "prompts.webp",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / FPS),
        loop=0,
        quality=60,
        method=6,
    )


if __name__ == "__main__":
    main()
