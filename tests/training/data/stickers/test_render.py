"""Motions, the renderer, and the clips they make."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from closeness import assert_close
from torch import Tensor

from loopanimate_training.data.photographs.cutouts import CutoutCache
from loopanimate_training.data.stickers.clips import (
    MISSING_MASK_SHARE,
    WRONG_MASK_SHARE,
    DrawnClip,
    DrawnClips,
)
from loopanimate_training.data.stickers.emoji import EmojiCache
from loopanimate_training.data.stickers.motion import (
    FIELDS,
    FPS,
    MOVING_VERBS,
    SHIFT,
    SHORT_NAMES,
    SPAN_FRAMES,
    SPEEDS,
    STILL,
    STRENGTHS,
    VERBS,
    Deformation,
    Motion,
    deformation_at,
)
from loopanimate_training.data.stickers.render import (
    BACKGROUND_KINDS,
    Anchors,
    Placement,
    Scene,
    axes,
    displaced,
    draw_background,
    half_side_px,
    place,
    render_clip,
)

pytestmark = pytest.mark.numeric

SIZE_PX = 48
SECONDS = torch.arange(SPAN_FRAMES) / FPS
SHAPES_PX = [(96, 96), (72, 128), (128, 72)]  # of almost equal area
BOX = Anchors(0.1, -0.05, 0.4, 0.5)


def deformation(count: int = 1, **values: float) -> Deformation:
    """`count` times the identity, and then the deformation with these values."""
    stacked = torch.zeros(count + 1, len(FIELDS))
    for name, value in values.items():
        stacked[-1, FIELDS.index(name)] = value
    return Deformation.from_stacked(stacked)


def moved(motion: Motion, times_s: Tensor, points: list[tuple[float, float]]) -> Tensor:
    """Displacements [n, k, 2] of `points`, given in half extents of `BOX` from its centre."""
    x = torch.tensor([BOX.x + BOX.half_width * x for x, _ in points])
    y = torch.tensor([BOX.y + BOX.half_height * y for _, y in points])
    at = displaced((x, y), deformation_at(motion, times_s), BOX)
    return torch.stack([at[0] - x, at[1] - y], -1)


# --------------------------------------------------------------------------------------- motion
@pytest.mark.parametrize("verb", VERBS)
def test_every_motion_starts_at_rest(verb: str) -> None:
    for words in itertools.product(SPEEDS, STRENGTHS):
        assert deformation_at(Motion(verb, *words), torch.zeros(1)).stacked().abs().max() == 0.0


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("verb", MOVING_VERBS)
def test_every_motion_passes_the_still_without_a_jump_or_a_corner(verb: str, speed: str) -> None:
    period_s = SPAN_FRAMES / FPS / SPEEDS[speed]
    h = 1.0 / FPS * torch.tensor([1.0, 0.5], dtype=torch.float64)
    before, after, at_end = (
        deformation_at(Motion(verb, speed), times_s).stacked() for times_s in (-h, h, period_s - h)
    )
    assert_close(at_end, before, depth=100, dtype=torch.float32)  # the end leads to the start
    largest = deformation_at(Motion(verb, speed), SECONDS).stacked().abs().max()
    assert 0.0 < after.abs().max() < 0.7 * largest
    # p(h) - 2 p(0) + p(-h) of a smooth path falls with h², of one with a corner with h
    bends = (after + before).abs().amax(1)
    assert bends[1] <= 0.3 * bends[0] + 1e-12


@pytest.mark.parametrize(
    ("verb", "field", "sign"),
    [
        ("bobbing up and down", "y", -1.0),  # up: y points down
        ("swaying left and right", "x", 1.0),
        ("rocking side to side", "angle_rad", 1.0),
        ("pulsing", "log_scale", 1.0),
        ("nodding", "tip_rad", 1.0),
        ("swaying in the wind", "bend", 1.0),
        ("leaning", "lean", 1.0),
        ("spinning", "widen", -1.0),
        ("zooming", "log_scale", 1.0),
    ],
)
def test_the_first_move_has_a_fixed_sign_and_one_field(verb: str, field: str, sign: float) -> None:
    values = deformation_at(Motion(verb), torch.tensor([0.1])).stacked()[0]
    assert values[FIELDS.index(field)] * sign > 0
    values[FIELDS.index(field)] = 0.0
    assert values.abs().max() == 0.0


@pytest.mark.parametrize("verb", MOVING_VERBS)
def test_speed_words_scale_time_and_strength_words_scale_the_range(verb: str) -> None:
    plain = deformation_at(Motion(verb), 2.0 * SECONDS).stacked()
    quick = deformation_at(Motion(verb, "quickly"), SECONDS).stacked()
    strong = deformation_at(Motion(verb, "", "strongly"), 2.0 * SECONDS).stacked()
    torch.testing.assert_close(quick, plain)
    torch.testing.assert_close(strong, 1.6 * plain)


def test_staying_still_is_still_at_any_speed_and_strength() -> None:
    for words in itertools.product(SPEEDS, STRENGTHS):
        assert deformation_at(Motion(STILL, *words), SECONDS).stacked().abs().max() == 0.0


def test_one_cycle_fills_the_span() -> None:
    times_s = torch.tensor([0.25, 0.5, 1.0]) * SPAN_FRAMES / FPS
    x = deformation_at(Motion("swaying left and right"), times_s).x
    torch.testing.assert_close(x, torch.tensor([SHIFT, 0.0, 0.0]), atol=1e-6, rtol=0.0)


def test_two_verbs_add_up() -> None:
    one, two = "bobbing up and down", "rocking side to side"
    both = deformation_at(Motion(one, "quickly", second_verb=two), SECONDS).stacked()
    parts = [deformation_at(Motion(verb, "quickly"), SECONDS).stacked() for verb in (one, two)]
    torch.testing.assert_close(both, parts[0] + parts[1])


BASE = [(-1.0, 1.0), (0.0, 1.0), (0.7, 1.0)]


@pytest.mark.parametrize(
    ("verb", "resting"),
    [
        ("swaying in the wind", BASE),
        ("leaning", BASE),
        ("nodding", [(0.0, 1.0)]),
        ("breathing", [(0.0, 1.0)]),
        ("wobbling like jelly", [(0.0, 1.0)]),
        ("rocking side to side", [(0.0, 0.0)]),
        ("pulsing", [(0.0, 0.0)]),
        ("zooming", [(0.0, 0.0)]),
        ("spinning", [(0.0, 0.5), (0.0, -1.0)]),
    ],
)
def test_anchored_motions_keep_their_anchor(verb: str, resting: list[tuple[float, float]]) -> None:
    assert moved(Motion(verb, "", "strongly"), SECONDS, resting).abs().max() < 1e-5
    corner = moved(Motion(verb, "", "strongly"), SECONDS, [(0.9, -0.9)])
    assert corner.abs().max() > 0.05


def test_the_motions_of_all_verbs_differ() -> None:
    across = (-0.9, -0.3, 0.3, 0.9)
    points = [(x, y) for x in across for y in across]
    paths = [moved(Motion(verb), SECONDS, points).flatten() for verb in MOVING_VERBS]
    for one, other in itertools.combinations(paths, 2):
        alike = torch.dot(one, other) / (one.norm() * other.norm())
        assert alike < 0.985  # swaying in the wind and leaning are the most alike


# ------------------------------------------------------------------------------------- renderer
def opaque_square(size_px: int = 32) -> np.ndarray:
    sprite = np.full((size_px, size_px, 4), 255, np.uint8)
    sprite[: size_px // 4, ..., :3] = 0  # a dark top shows the orientation
    return sprite


def square_scene(side_px: int = 20, size_px: int = SIZE_PX, background: float = 1.0) -> Scene:
    layer = place(opaque_square()[None], Placement(scale=side_px / size_px), size_px, size_px)[0]
    return Scene(layer, torch.full((size_px, size_px, 3), background))


def dot_scene(at: tuple[float, float], height_px: int, width_px: int) -> Scene:
    """A grey box with a soft white dot, `at` in half extents of the box from its middle."""
    x_axis, y_axis = axes(height_px, width_px)
    inside = (x_axis.abs() < 0.42) & (y_axis.abs()[:, None] < 0.42)
    alpha = inside.float()
    x, y = (0.42 * part for part in at)
    dot = torch.exp(-((x_axis - x).square() + (y_axis[:, None] - y).square()) / (2 * 0.03**2))
    return Scene(torch.stack([dot * alpha] * 3 + [alpha]), torch.zeros(height_px, width_px, 3))


def centre(weights: Tensor) -> Tensor:
    """Of [n, H, W], as [n, 2] (x, y) in half-sides."""
    x_axis, y_axis = axes(*weights.shape[1:])
    total = weights.sum((1, 2))
    x, y = (weights * x_axis).sum((1, 2)), (weights * y_axis[:, None]).sum((1, 2))
    return torch.stack([x, y], -1) / total[:, None]


@pytest.mark.parametrize("size", SHAPES_PX, ids=str)
@pytest.mark.parametrize("at", [(0.3, -0.4), (-0.5, 0.2)])
def test_what_is_drawn_lands_where_displaced_says(
    at: tuple[float, float], size: tuple[int, int]
) -> None:
    scene = dot_scene(at, *size)
    random = torch.randn(4, len(FIELDS), generator=torch.Generator().manual_seed(3))
    verbs = [
        deformation_at(Motion(verb, "", "strongly"), torch.tensor([0.7])).stacked()
        for verb in MOVING_VERBS
    ]
    every = Deformation.from_stacked(torch.cat([0.15 * random, *verbs]))
    frames, _ = scene.draw(every)
    # displaced by its own shape, a dot is not symmetric any more, so its centre is not exact
    true = torch.stack(
        displaced(
            (torch.tensor([0.42 * at[0]]), torch.tensor([0.42 * at[1]])), every, scene.anchors
        ),
        -1,
    )[:, 0]
    found = centre(frames[..., 0])
    assert (found - true).abs().max() * half_side_px(*size) < 0.6


@pytest.mark.parametrize("verb", VERBS)
def test_frame_0_is_the_still_for_every_verb(sticker_cache: EmojiCache, verb: str) -> None:
    background, _ = draw_background(np.random.default_rng(0), "noise", SIZE_PX, SIZE_PX)
    sprite, placement = sticker_cache.sprites[3], Placement(0.1, -0.05, 0.6)
    still, still_mask = render_clip(sprite, Motion(), SECONDS[:1], background, placement)
    frames, masks = render_clip(sprite, Motion(verb), SECONDS, background, placement)
    assert_close(frames[0], still[0])
    assert torch.equal(masks[0], still_mask[0])
    assert frames.shape == (SPAN_FRAMES, SIZE_PX, SIZE_PX, 3)
    assert frames.min() >= 0.0 and frames.max() <= 1.0 + 1e-5
    most = float((frames - frames[:1]).abs().mean((1, 2, 3)).max())
    assert (most < 1e-6) == (verb == STILL)


def test_the_still_of_a_scene_is_what_it_draws_undeformed() -> None:
    scene = square_scene(background=0.5)
    frames, masks = scene.draw(deformation())
    picture, mask = scene.still()
    assert_close(frames[1], picture, depth=100)
    assert torch.equal(masks[1], mask)


def test_a_shift_by_whole_pixels_is_exact() -> None:
    unit = half_side_px(SIZE_PX, SIZE_PX)
    frames, masks = square_scene().draw(deformation(x=3.0 / unit, y=-2.0 / unit))
    assert_close(frames[1], frames[0].roll((-2, 3), (0, 1)), depth=100)
    assert torch.equal(masks[1], masks[0].roll((-2, 3), (0, 1)))
    assert masks.sum((1, 2)).tolist() == [400, 400]


def test_the_mask_is_where_alpha_is_above_one_half() -> None:
    sprite = opaque_square(24)
    sprite[..., 3] = np.linspace(0, 255, 24).round()  # fading in from the left
    layer = place(sprite[None], Placement(scale=0.5), SIZE_PX, SIZE_PX)[0]
    _, masks = Scene(layer, torch.ones(SIZE_PX, SIZE_PX, 3)).draw(deformation())
    expected = torch.zeros(SIZE_PX, SIZE_PX, dtype=torch.bool)
    expected[12:36, 12:36] = torch.from_numpy(sprite[..., 3] > 127)
    assert torch.equal(masks[0], expected)


def test_positive_turns_are_clockwise_and_positive_sizes_grow() -> None:
    scene, middle = square_scene(), SIZE_PX // 2
    turned, _ = scene.draw(deformation(angle_rad=math.pi / 2))
    dark = (1.0 - turned).mean(-1)  # the dark quarter moves from the top to the right
    assert dark[0, :middle].sum() > 10 * dark[0, middle:].sum()
    assert dark[1, :, middle:].sum() > 10 * dark[1, :, :middle].sum()
    _, masks = scene.draw(deformation(log_scale=math.log(1.5)))
    assert masks[1].sum() / masks[0].sum() == pytest.approx(2.25, rel=0.02)
    _, masks = scene.draw(deformation(heighten=math.log(1.5), widen=math.log(0.5)))
    assert masks[1].sum() / masks[0].sum() == pytest.approx(0.75, rel=0.02)


@pytest.mark.parametrize("verb", ["bobbing up and down", "swaying left and right"])
def test_all_shapes_of_one_area_move_as_many_pixels(verb: str) -> None:
    ways = []
    for height_px, width_px in SHAPES_PX:
        background = torch.zeros(height_px, width_px, 3)
        frames, _ = render_clip(
            opaque_square(), Motion(verb), SECONDS, background, Placement(scale=0.4)
        )
        at = centre(frames[..., 0]) * half_side_px(height_px, width_px)
        ways.append(float((at.amax(0) - at.amin(0)).max()))
    assert ways == [pytest.approx(2 * SHIFT * 48, abs=0.3)] * 3


@pytest.mark.parametrize("size", SHAPES_PX, ids=str)
def test_stickers_keep_their_shape_in_pictures_of_all_shapes(size: tuple[int, int]) -> None:
    layer = place(opaque_square()[None], Placement(0.1, 0.1, 0.5), *size)[0]
    rows, columns = ((layer[3] > 0.5).any(side).sum() for side in (1, 0))
    assert int(rows) == int(columns) == round(0.5 * min(size))


def test_outside_the_sprite_the_background_is_untouched() -> None:
    background, _ = draw_background(np.random.default_rng(1), "gradient", SIZE_PX, SIZE_PX)
    motion = Motion("swaying left and right")
    frames, masks = render_clip(opaque_square(), motion, SECONDS, background, Placement(0, 0, 0.4))
    rows = masks.any(0).any(1).nonzero()[:, 0]
    above = frames[:, : int(rows.min()) - 1]
    assert torch.equal(above, background[: above.shape[1]].expand_as(above))
    changed = (frames - background).abs().amax(-1) > 0.01
    near = torch.nn.functional.max_pool2d(masks.float(), 3, 1, 1) > 0.5
    assert not (changed & ~near).any()


@pytest.mark.parametrize("size", [(48, 48), (36, 64)], ids=str)
@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
def test_backgrounds_are_colours_and_only_plain_ones_have_a_name(
    kind: str, size: tuple[int, int]
) -> None:
    for seed in range(10):
        background, name = draw_background(np.random.default_rng(seed), kind, *size)
        assert background.shape == (*size, 3)
        assert background.min() >= 0.0 and background.max() <= 1.0
        assert bool(name) == (kind in ("pastel", "saturated"))


# ---------------------------------------------------------------------------------------- clips
@pytest.fixture(scope="module")
def stickers(sticker_cache: EmojiCache) -> DrawnClips:
    """Stickers on drawn backgrounds alone."""
    return DrawnClips(sticker_cache, "train", SIZE_PX, SIZE_PX)


@pytest.fixture(scope="module")
def clips(sticker_cache: EmojiCache, cutout_cache: CutoutCache) -> DrawnClips:
    """Stickers and cut-outs."""
    return DrawnClips(sticker_cache, "train", 32, 32, cutouts=cutout_cache)


@pytest.fixture(scope="module")
def many(clips: DrawnClips) -> list[DrawnClip]:
    return [clips[number] for number in range(600)]


def same(one: DrawnClip, other: DrawnClip) -> bool:
    pixels = zip(one.frames([0, 20]), other.frames([0, 20]), strict=True)
    return one.caption == other.caption and all(np.array_equal(a, b) for a, b in pixels)


def is_cut_out(clip: DrawnClip) -> bool:
    return clip.family.endswith(".png")


def test_a_clip_is_a_function_of_its_number(
    sticker_cache: EmojiCache, cutout_cache: CutoutCache, clips: DrawnClips
) -> None:
    def drawn(split: str = "train", seed: int = 0) -> DrawnClips:
        return DrawnClips(sticker_cache, split, 32, 32, seed, cutouts=cutout_cache)

    again = drawn()
    for number in (31, 4, 15):
        assert same(clips[number], again[number])
    assert not same(clips[4], clips[5])
    assert not same(clips[4], drawn(seed=1)[4])
    assert not same(clips[4], drawn("held_out")[4])


def test_a_subset_of_frames_equals_those_of_the_whole_clip(clips: DrawnClips) -> None:
    for number in range(12):
        frames, masks = clips[number].frames()
        some, some_masks = clips[number].frames([0, 30, 7])
        assert np.abs(some.astype(int) - frames[[0, 30, 7]]).max() <= 1
        assert (some_masks == masks[[0, 30, 7]]).mean() > 0.999


def test_the_splits_share_neither_sticker_nor_photograph(
    sticker_cache: EmojiCache, cutout_cache: CutoutCache, many: list[DrawnClip]
) -> None:
    held_out = DrawnClips(sticker_cache, "held_out", 32, 32, cutouts=cutout_cache)
    kept = [held_out[number] for number in range(60)]
    assert not {clip.family for clip in many} & {clip.family for clip in kept}
    assert {is_cut_out(clip) for clip in kept} == {True, False}


def test_captions_describe_the_motion(many: list[DrawnClip]) -> None:
    for clip in many:
        words = set(clip.caption.replace(",", "").split())
        if clip.motion is None:
            assert "animated sticker" in clip.caption and clip.verb == ""
            assert not any(verb in clip.caption for verb in VERBS)
        else:
            for verb in clip.motion.verbs:
                assert verb in clip.caption or SHORT_NAMES.get(verb, verb) in clip.caption
            assert {clip.motion.speed, clip.motion.strength} - {""} <= words
            assert not words & (set(SPEEDS) | set(STRENGTHS)) - {
                clip.motion.speed,
                clip.motion.strength,
            }


def test_the_mix_is_as_planned(many: list[DrawnClip]) -> None:
    def share(wanted: list[bool]) -> float:
        return sum(wanted) / len(wanted)

    motions = [clip.motion for clip in many if clip.motion]
    moving = [motion for motion in motions if motion.verb != STILL]
    assert share([clip.motion is None for clip in many]) == pytest.approx(0.08, abs=0.04)
    assert share([motion.verb == STILL for motion in motions]) == pytest.approx(0.087, abs=0.04)
    assert {motion.verb for motion in moving} == set(MOVING_VERBS)
    # 60 % by design, plus one in nine of the free draws
    plain = [not motion.speed and not motion.strength for motion in moving]
    assert share(plain) == pytest.approx(0.644, abs=0.07)
    assert 0.02 < share([bool(motion.second_verb) for motion in moving]) < 0.1
    drawn = [clip for clip in many if clip.motion]
    assert share([is_cut_out(clip) for clip in drawn]) == pytest.approx(0.42, abs=0.07)


def test_animated_stickers_play_their_frames_in_order(stickers: DrawnClips) -> None:
    real = next(clip for number in range(200) if (clip := stickers[number]).motion is None)
    frames, _ = real.frames()
    assert np.array_equal(frames[0], frames[8])  # eight drawn frames, then repeated
    assert not np.array_equal(frames[0], frames[4])
    assert_close(real.draw([0])[0][0], real.scene.still()[0], depth=100)


def test_moving_stickers_stay_mostly_in_the_picture(stickers: DrawnClips) -> None:
    for number in range(60):
        clip = stickers[number]
        if clip.motion and clip.motion.strength != "strongly" and not clip.motion.second_verb:
            _, masks = clip.frames([0, *range(1, SPAN_FRAMES, 3)])
            area = masks.sum((1, 2))
            # a coin that spins about its axis shows less of itself
            assert area.min() > (0.35 if clip.verb == "spinning" else 0.55) * area[0], clip.caption


def test_a_share_of_the_masks_is_wrong_or_missing(many: list[DrawnClip]) -> None:
    drawn = [clip for clip in many if clip.motion]
    wrong = [isinstance(clip.mask, int) for clip in drawn]
    missing = [clip.mask == "missing" for clip in drawn if not is_cut_out(clip)]
    assert np.mean(wrong) == pytest.approx(WRONG_MASK_SHARE, abs=0.04)
    assert np.mean(missing) == pytest.approx(MISSING_MASK_SHARE, abs=0.04)
    # without a mask, nothing would say which part of a photograph is meant
    assert not any(clip.mask == "missing" for clip in drawn if is_cut_out(clip))


def test_masks_are_spoilt_as_they_say_and_frames_are_not(stickers: DrawnClips) -> None:
    rng = np.random.default_rng(0)
    clip = replace(stickers.moved(rng, 5, Motion("bobbing up and down"), "noise"), mask="true")
    frames, true = clip.frames([0, 20])
    assert np.array_equal(true, clip.draw([0, 20])[1].numpy())
    for mask, area in (("missing", true[0].size), (5, None), (-2, None), (-30, true[0].sum())):
        spoilt_frames, spoilt = replace(clip, mask=mask).frames([0, 20])
        assert np.array_equal(spoilt_frames, frames)
        if area is not None:  # everything, or what would vanish stays
            assert spoilt[0].sum() == area
        elif int(mask) > 0:
            assert (spoilt & true).sum() == true.sum() < spoilt.sum()
        else:
            assert (spoilt & true).sum() == spoilt.sum() < true.sum()


def test_stickers_also_stand_before_photographs(
    clips: DrawnClips, cutout_cache: CutoutCache, many: list[DrawnClip]
) -> None:
    rng = np.random.default_rng(0)
    _, _, backgrounds = zip(
        *(cutout_cache.layer(cutout) for cutout in cutout_cache.select(False, 32, 32)), strict=True
    )
    photographs = {np.asarray(background).tobytes() for background in backgrounds}

    def over_photograph(clip: DrawnClip) -> bool:
        pixels = (clip.scene.background * 255.0).round().byte().numpy()
        return pixels.tobytes() in photographs

    assert over_photograph(clips.moved(rng, 3, Motion("waving"), "photograph"))
    assert not over_photograph(clips.moved(rng, 3, Motion("waving"), "noise"))
    share = np.mean([over_photograph(clip) for clip in many if not is_cut_out(clip)])
    assert share == pytest.approx(0.35, abs=0.08)


def test_a_clip_of_a_cut_out_starts_from_its_photograph(
    clips: DrawnClips, cutout_cache: CutoutCache
) -> None:
    rng = np.random.default_rng(0)
    cutout = cutout_cache.select(False, 32, 32)[0]
    picture, alpha, background = cutout_cache.layer(cutout)
    mirrored = set()
    for _ in range(8):
        clip = clips.cut_out(rng, cutout, Motion("pulsing"))
        still = clip.scene.still()[0].numpy() * 255.0
        straight, flipped = (np.abs(still[:, ::way] - picture) for way in (1, -1))
        mirrored.add(flipped.mean() < straight.mean())
        if flipped.mean() < straight.mean():
            still = still[:, ::-1]
        assert np.abs(still - picture)[alpha == 255].max() <= 1.0
        assert np.abs(still - background)[alpha == 0].max() <= 1.0
        assert clip.family == cutout.photograph
    assert mirrored == {True, False}
