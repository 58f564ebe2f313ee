"""Regenerate the playing loops of the README and the sheet of photographs in docs/detail.md.

    python docs/images/make_loops.py [NAME ...]

The mini that ships draws every motion at 96 px; detail transfer moves the pictures' own pixels. Writes
`loop_NAME.webp` and `detail_NAME.jpg` (above the model's frames, below the result) beside this file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from loopanimate_core.picture.images import fit_pixels, load_picture, save_picture, to_uint8
from loopanimate_core.picture.sheet import contact_sheet
from loopanimate_core.pipeline import LoopAnimatePipeline

HERE = Path(__file__).parent
STICKERS = HERE.parents[1] / "loopanimate_core" / "data" / "pictures"
FPS, QUALITY, COLUMNS = 12.0, 60, 6


@dataclass(frozen=True)
class Example:
    """One loop: what to say to the mini, and how large to write it."""

    prompt: str
    size: str
    frame_size: tuple[int, int] = (96, 96)  # height, width
    mode: str = "auto"
    seed: int = 0
    sticker: bool = False


EXAMPLES = {
    "ghost": Example("a ghost bobbing up and down", "320x320", sticker=True),
    "toadstool": Example("a mushroom rocking side to side", "320x320", sticker=True),
    "flower": Example("a flower pulsing", "432x288"),
    "dogs": Example("a dog bobbing up and down", "424x288"),
    "dandelion": Example("a flower swaying left and right", "640x360", (72, 128), "elastic"),
    "cat": Example("a cat swaying left and right", "432x288"),
    "coffee": Example("a cup swaying left and right", "432x288"),
    "rocket": Example("a rocket bobbing up and down", "432x288"),
}


def make(name: str, pipeline: LoopAnimatePipeline) -> None:
    """Write the loop and the sheet of one example."""
    example = EXAMPLES[name]
    height, width = example.frame_size
    if example.sticker:
        picture, mask = load_picture(STICKERS / f"{name}.png"), "auto"
    else:
        picture = load_picture(HERE / "sources" / f"{name}.jpg")
        mask = load_picture(HERE / "sources" / f"{name}_mask.png").rgb[..., 0]
    drawn = pipeline(
        picture, example.prompt, mask=mask, seed=example.seed, height_px=height, width_px=width
    )
    loop = drawn.frames_at(example.size, fps=FPS, mode=example.mode)
    frames = torch.stack(list(loop))
    print(f"{name}: {loop.mode}, {loop.motion.object.model if loop.motion else 'off'}")
    pictures = [Image.fromarray(frame.numpy()) for frame in to_uint8(frames)]
    pictures[0].save(  # with key frames where Pillow puts them: smaller than write_video's files
        HERE / f"loop_{name}.webp",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / FPS),
        loop=0,
        quality=QUALITY,
        method=6,
    )
    tall, wide = (192, 192 * frames.shape[2] // frames.shape[1])
    rows = []
    for shown in (drawn.frames, frames):
        chosen = torch.linspace(0, len(shown) - 1, COLUMNS).round().long()
        tiles = torch.stack([fit_pixels(shown[index], tall, wide) for index in chosen])
        rows.append(contact_sheet(tiles, COLUMNS, 2))
    save_picture(torch.cat(rows), HERE / f"detail_{name}.jpg")


def main() -> None:
    pipeline = LoopAnimatePipeline.from_bundle()
    for name in sys.argv[1:] or EXAMPLES:
        make(name, pipeline)


if __name__ == "__main__":
    main()
