"""The mini's mix of clips, and whether their captions are true."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from loopanimate_training.mini.clips import MiniClips
from loopanimate_training.mini.emoji import EmojiCache
from loopanimate_training.mini.motion import CORE_VERBS, SPEEDS, STILL, STRENGTHS, VERBS

SIZE_PX = 48


@pytest.fixture(scope="module")
def clips(sticker_cache: EmojiCache) -> MiniClips:
    return MiniClips(sticker_cache, "train", SIZE_PX)


def test_captions_say_what_the_clip_does(clips: MiniClips) -> None:
    for number in range(200):
        clip = clips[number]
        words = set(clip.caption.replace(",", "").split())
        if clip.motion is None:
            assert "animated sticker" in clip.caption and clip.verb == ""
            assert not any(verb in clip.caption for verb in VERBS)
        else:
            assert clip.verb in clip.caption
            assert {clip.motion.speed, clip.motion.strength} - {""} <= words
            assert not words & (set(SPEEDS) | set(STRENGTHS)) - {
                clip.motion.speed,
                clip.motion.strength,
            }


def test_the_mix_is_as_planned(clips: MiniClips) -> None:
    motions = [clips[number].motion for number in range(1000)]
    real = sum(motion is None for motion in motions)
    verbs = [motion.verb for motion in motions if motion]
    plain = [m for m in motions if m and m.verb != STILL and not m.speed and not m.strength]
    assert real / 1000 == pytest.approx(0.15, abs=0.04)
    assert verbs.count(STILL) / 1000 == pytest.approx(0.15, abs=0.04)
    assert set(verbs) == set(CORE_VERBS)
    # 60 % by intent, and one in nine of the free draws
    assert len(plain) / (len(verbs) - verbs.count(STILL)) == pytest.approx(0.644, abs=0.05)


def test_designers_clips_play_their_frames_in_order(clips: MiniClips) -> None:
    real = next(clip for number in range(100) if (clip := clips[number]).motion is None)
    frames, _ = real.frames()
    assert np.array_equal(frames[0], frames[8])  # eight drawn frames, begun again
    assert not np.array_equal(frames[0], frames[4])


def test_movers_keep_most_of_themselves_in_the_picture(clips: MiniClips) -> None:
    for number in range(60):
        clip = clips[number]
        if clip.motion and clip.motion.strength != "strongly":
            _, masks = clip.frames()
            area = masks.sum((1, 2))
            assert area.min() > 0.6 * area[0], clip.caption


def test_drawing_a_clip_is_cheap(sticker_cache: EmojiCache) -> None:
    clip = MiniClips(sticker_cache, "train", 96)[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        clip.frames()
        seconds = []
        for _ in range(5):
            began = time.thread_time()
            clip.frames()
            seconds.append(time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    assert min(seconds) < 0.1  # 0.02 on a quiet core; training draws it while the network learns
