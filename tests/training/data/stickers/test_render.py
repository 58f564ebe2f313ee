"""Motions, the renderer and the clips made of both."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from closeness import assert_close

from loopanimate_training.data.stickers.clips import StickerClip, StickerClips
from loopanimate_training.data.stickers.emoji import EmojiCache
from loopanimate_training.data.stickers.motion import (
    CORE_VERBS,
    FPS,
    SHIFT,
    SPAN_FRAMES,
    SPEEDS,
    STILL,
    STRENGTHS,
    VERBS,
    Motion,
    Pose,
    pose_at,
)
from loopanimate_training.data.stickers.render import (
    BACKGROUND_KINDS,
    Placement,
    compose,
    draw_background,
    premultiplied,
    render_clip,
)

pytestmark = pytest.mark.numeric

SIZE_PX = 48
SECONDS = torch.arange(SPAN_FRAMES) / FPS


def numbers(pose: Pose) -> torch.Tensor:
    return torch.stack([pose.x, pose.y, pose.angle_rad, pose.log_scale])


def opaque_square(size_px: int = 32) -> np.ndarray:
    sprite = np.full((size_px, size_px, 4), 255, np.uint8)
    sprite[: size_px // 4, ..., :3] = 0  # a dark top tells which way up
    return sprite


# --------------------------------------------------------------------------------------- motion
@pytest.mark.parametrize("words", list(itertools.product(VERBS, SPEEDS, STRENGTHS)))
def test_every_motion_begins_at_the_still(words: tuple[str, str, str]) -> None:
    assert numbers(pose_at(Motion(*words), torch.zeros(1))).abs().max() == 0.0


@pytest.mark.parametrize(
    ("verb", "track", "sign"),
    [
        ("bobbing up and down", 1, -1.0),  # up: y points down
        ("swaying left and right", 0, 1.0),
        ("rocking side to side", 2, 1.0),
        ("pulsing", 3, 1.0),
        ("bouncing", 1, -1.0),
        ("drifting left", 0, -1.0),
    ],
)
def test_the_first_move_has_a_fixed_sign_and_one_track(verb: str, track: int, sign: float) -> None:
    pose = numbers(pose_at(Motion(verb), torch.tensor([0.1])))[:, 0]
    assert pose[track] * sign > 0
    pose[track] = 0.0
    assert pose.abs().max() == 0.0


@pytest.mark.parametrize("verb", CORE_VERBS)
def test_speed_words_stretch_time_and_strength_words_the_way(verb: str) -> None:
    plain = numbers(pose_at(Motion(verb), 2.0 * SECONDS))
    torch.testing.assert_close(numbers(pose_at(Motion(verb, "quickly"), SECONDS)), plain)
    torch.testing.assert_close(
        numbers(pose_at(Motion(verb, "", "strongly"), 2.0 * SECONDS)), 1.6 * plain
    )


def test_staying_still_is_still_at_any_speed_and_strength() -> None:
    for words in itertools.product([STILL], SPEEDS, STRENGTHS):
        assert numbers(pose_at(Motion(*words), SECONDS)).abs().max() == 0.0


def test_one_cycle_fills_the_span() -> None:
    pose = pose_at(
        Motion("swaying left and right"), torch.tensor([0.25, 0.5, 1.0]) * SPAN_FRAMES / FPS
    )
    torch.testing.assert_close(pose.x, torch.tensor([SHIFT, 0.0, 0.0]), atol=1e-6, rtol=0.0)


# ------------------------------------------------------------------------------------- renderer
@pytest.mark.parametrize("verb", VERBS)
def test_frame_0_is_the_still_whatever_the_verb(sticker_cache: EmojiCache, verb: str) -> None:
    background, _ = draw_background(np.random.default_rng(0), "noise", SIZE_PX)
    sprite, place = sticker_cache.sprites[3], Placement(0.1, -0.05, 0.6)
    still, still_mask = render_clip(sprite, Motion(), SECONDS[:1], background, place, SIZE_PX)
    frames, masks = render_clip(sprite, Motion(verb), SECONDS, background, place, SIZE_PX)
    assert torch.equal(frames[0], still[0]) and torch.equal(masks[0], still_mask[0])
    assert frames.shape == (SPAN_FRAMES, SIZE_PX, SIZE_PX, 3)
    assert frames.min() >= 0.0 and frames.max() <= 1.0 + 1e-6
    moved = (frames - frames[:1]).abs().mean((1, 2, 3)).max()
    assert (moved == 0.0) == (verb == STILL)


def test_a_shift_by_whole_pixels_is_exact() -> None:
    planes = premultiplied(opaque_square()[None], 20)
    zero = torch.zeros(2)
    pose = Pose(torch.tensor([0.0, 6.0 / SIZE_PX]), torch.tensor([0.0, -4.0 / SIZE_PX]), zero, zero)
    background = torch.full((SIZE_PX, SIZE_PX, 3), 0.5)
    frames, masks = compose(planes, pose, background, Placement(0, 0, 20 / SIZE_PX), SIZE_PX)
    assert_close(frames[1], frames[0].roll((-2, 3), (0, 1)))
    assert torch.equal(masks[1], masks[0].roll((-2, 3), (0, 1)))
    assert masks.sum((1, 2)).tolist() == [400, 400]


def test_the_mask_is_where_alpha_is_above_one_half() -> None:
    sprite = opaque_square(24)
    sprite[..., 3] = np.linspace(0, 255, 24).round()  # fading in from the left
    planes = premultiplied(sprite[None], 24)
    zero = torch.zeros(1)
    background = torch.ones(SIZE_PX, SIZE_PX, 3)
    _, masks = compose(
        planes, Pose(zero, zero, zero, zero), background, Placement(0, 0, 0.5), SIZE_PX
    )
    expected = torch.zeros(SIZE_PX, SIZE_PX, dtype=torch.bool)
    expected[12:36, 12:36] = torch.from_numpy(sprite[..., 3] > 127)
    assert torch.equal(masks[0], expected)


def test_turns_are_clockwise_and_sizes_grow() -> None:
    planes = premultiplied(opaque_square()[None], 20)
    zero = torch.zeros(2)
    background = torch.ones(SIZE_PX, SIZE_PX, 3)
    place = Placement(0, 0, 20 / SIZE_PX)
    turned, _ = compose(
        planes, Pose(zero, zero, torch.tensor([0.0, math.pi / 2]), zero), background, place, SIZE_PX
    )
    dark = (1.0 - turned).mean(-1)  # the dark quarter goes from the top to the right
    middle = SIZE_PX // 2
    assert dark[0, :middle].sum() > 10 * dark[0, middle:].sum()
    assert dark[1, :, middle:].sum() > 10 * dark[1, :, :middle].sum()
    log_scale = torch.tensor([0.0, math.log(1.5)])
    _, masks = compose(planes, Pose(zero, zero, zero, log_scale), background, place, SIZE_PX)
    assert masks[1].sum() / masks[0].sum() == pytest.approx(2.25, rel=0.02)


def test_outside_the_sprite_the_background_is_untouched() -> None:
    background, _ = draw_background(np.random.default_rng(1), "gradient", SIZE_PX)
    motion = Motion("swaying left and right")
    frames, masks = render_clip(
        opaque_square(), motion, SECONDS, background, Placement(0, 0, 0.4), SIZE_PX
    )
    rows = masks.any(0).any(1).nonzero()[:, 0]
    above = frames[:, : int(rows.min()) - 1]
    assert torch.equal(above, background[: above.shape[1]].expand_as(above))
    changed = (frames - background).abs().amax(-1) > 0.05
    assert (changed & ~masks).float().mean() < 0.02


@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
def test_backgrounds_are_colours_and_only_plain_ones_have_a_name(kind: str) -> None:
    for seed in range(20):
        background, name = draw_background(np.random.default_rng(seed), kind, SIZE_PX)
        assert background.shape == (SIZE_PX, SIZE_PX, 3)
        assert background.min() >= 0.0 and background.max() <= 1.0
        assert bool(name) == (kind in ("pastel", "saturated"))


# ---------------------------------------------------------------------------------------- clips
@pytest.fixture(scope="module")
def clips(sticker_cache: EmojiCache) -> StickerClips:
    return StickerClips(sticker_cache, "train", SIZE_PX)


def same(one: StickerClip, other: StickerClip) -> bool:
    pixels = zip(one.frames(), other.frames(), strict=True)
    return one.caption == other.caption and all(np.array_equal(a, b) for a, b in pixels)


def test_a_clip_is_a_function_of_its_number(sticker_cache: EmojiCache, clips: StickerClips) -> None:
    again = StickerClips(sticker_cache, "train", SIZE_PX)
    for number in (31, 4, 15):
        assert same(clips[number], again[number])
    assert not same(clips[4], clips[5])
    assert not same(clips[4], StickerClips(sticker_cache, "train", SIZE_PX, seed=1)[4])
    assert not same(clips[4], StickerClips(sticker_cache, "held_out", SIZE_PX)[4])


def test_some_frames_equal_the_same_frames_of_all(clips: StickerClips) -> None:
    for number in range(12):
        frames, masks = clips[number].frames()
        some, some_masks = clips[number].frames([0, 30, 7])
        assert np.array_equal(some, frames[[0, 30, 7]])
        assert np.array_equal(some_masks, masks[[0, 30, 7]])


def test_the_splits_share_no_sticker(sticker_cache: EmojiCache, clips: StickerClips) -> None:
    held_out = StickerClips(sticker_cache, "held_out", SIZE_PX)
    seen = {clips[number].emoji.family for number in range(200)}
    kept = {held_out[number].emoji.family for number in range(50)}
    assert not seen & kept


def test_captions_say_what_the_clip_does(clips: StickerClips) -> None:
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


def test_the_mix_is_as_planned(clips: StickerClips) -> None:
    motions = [clips[number].motion for number in range(1000)]
    real = sum(motion is None for motion in motions)
    verbs = [motion.verb for motion in motions if motion]
    plain = [m for m in motions if m and m.verb != STILL and not m.speed and not m.strength]
    assert real / 1000 == pytest.approx(0.15, abs=0.04)
    assert verbs.count(STILL) / 1000 == pytest.approx(0.15, abs=0.04)
    assert set(verbs) == set(CORE_VERBS)
    # 60 % by intent, and one in nine of the free draws
    assert len(plain) / (len(verbs) - verbs.count(STILL)) == pytest.approx(0.644, abs=0.05)


def test_designers_clips_play_their_frames_in_order(clips: StickerClips) -> None:
    real = next(clip for number in range(100) if (clip := clips[number]).motion is None)
    frames, _ = real.frames()
    assert np.array_equal(frames[0], frames[8])  # eight drawn frames, begun again
    assert not np.array_equal(frames[0], frames[4])


def test_movers_keep_most_of_themselves_in_the_picture(clips: StickerClips) -> None:
    for number in range(60):
        clip = clips[number]
        if clip.motion and clip.motion.strength != "strongly":
            _, masks = clip.frames()
            area = masks.sum((1, 2))
            assert area.min() > 0.6 * area[0], clip.caption
