"""Does the motion reader read drawn clips right? Its confusion table on the renderer's own frames.

    python benchmarks/motion_reader.py --data WORK/data [--subjects 8]

Held-out stickers on drawn backgrounds, over photographs, and parts of photographs; verbs in turn, speeds and
strengths at random. `mini_quality.py` scores a model with this reader.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from held_out import GROUPS, held_out_clips, open_caches
from mini_figures import confusions
from tqdm import tqdm

from loopanimate_training.alss import forward_indices
from loopanimate_training.data.stickers.classify import MotionReading, read_motion
from loopanimate_training.data.stickers.clips import DrawnClip
from loopanimate_training.data.stickers.motion import SPEEDS, STRENGTHS, VERBS

GOAL = 0.97
FORWARD = forward_indices(18, 3)  # the longest clip that the mini is trained with


def read(clip: DrawnClip) -> MotionReading:
    """What the drawn frames of the way there show."""
    return read_motion(clip.draw(FORWARD)[0], clip.scene, FORWARD)


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(1)
    cache, cutouts = open_caches(options.data)
    height_px, width_px = options.size
    groups = [group for group in GROUPS if cutouts or group == GROUPS[0]]
    subjects = {group: int(options.subjects) for group in groups}
    verbs = options.verbs
    clips = held_out_clips(
        cache, cutouts, subjects, height_px, width_px, verbs=verbs, seed=options.seed
    )
    rng = np.random.default_rng(options.seed)
    start, right, two = time.process_time(), Counter[str](), 0
    for group, own in clips.items():
        pairs, misread = [], []
        for clip in tqdm(own, desc=group, unit="clip"):
            assert clip.motion is not None
            speed, strength = str(rng.choice(list(SPEEDS))), str(rng.choice(list(STRENGTHS)))
            moved = replace(clip, motion=replace(clip.motion, speed=speed, strength=strength))
            reading = read(moved)
            pairs.append((clip.verb, reading.verb))
            two += bool(reading.second_verb)
            if reading.verb != clip.verb:
                words = " ".join(word for word in (clip.caption, speed, strength) if word)
                misread.append(f"{words} ({clip.subject}): {reading.verb}")
        right[group] = len(own) - len(misread)
        print("\n".join(["", *confusions(pairs, verbs, group), *misread]))
    count = sum(map(len, clips.values()))
    shares = ", ".join(f"{right[group] / len(own):.1%} {group}" for group, own in clips.items())
    seconds = (time.process_time() - start) / count
    print(
        f"\n{count} clips read, {right.total() / count:.1%} right (goal {GOAL:.0%}): {shares}; "
        f"{two} with a second verb; {seconds:.2f} s of processor time each"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of the sticker cache and `cutouts`")
    add("--subjects", type=int, default=8, help="of each group; each is moved by every verb")
    add("--verbs", nargs="+", choices=VERBS, default=list(VERBS), metavar="VERB")
    add("--size", nargs=2, type=int, default=(96, 96), metavar=("HEIGHT", "WIDTH"))
    add("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
