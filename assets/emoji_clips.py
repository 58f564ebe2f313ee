"""Write the clips of `make train-demo`, animated emoji with masks, from the mini's sticker cache.

python assets/emoji_clips.py CACHE     # the folder `data` that `python -m loopanimate_training.mini` fills
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from loopanimate_core.video import write_video
from loopanimate_training.data.stickers.emoji import EmojiCache
from loopanimate_training.demo import EMOJI_CLIPS

CAPTIONS = {
    "black cat": "a black cat walking",
    "butterfly": "a butterfly flapping its wings",
    "chequered flag": "a chequered flag waving",
    "penguin": "a penguin waddling",
    "raccoon": "a raccoon tilting its head",
    "zebra": "a zebra walking",
}
FRAMES, FPS = 60, 24.0
BACKGROUND = 0.9  # grey


def main() -> None:
    cache = EmojiCache(sys.argv[1])
    EMOJI_CLIPS.mkdir(parents=True, exist_ok=True)
    for name, caption in CAPTIONS.items():
        emoji = next(emoji for emoji in cache.emoji if emoji.name == name)
        rows = emoji.clip_start + np.arange(FRAMES) % emoji.clip_frames  # they play as loops
        rgba = torch.from_numpy(np.array(cache.clips[rows])).float() / 255
        colour, alpha = rgba[..., :3], rgba[..., 3:]
        target = EMOJI_CLIPS / f"{name.replace(' ', '_')}.mp4"
        write_video(colour * alpha + BACKGROUND * (1 - alpha), target, fps=FPS, repeats=1)
        mask = (alpha > 0.5).float().expand(*alpha.shape[:3], 3)
        write_video(mask, target.with_suffix(".mask.mp4"), fps=FPS, repeats=1)
        target.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
