"""The whole of detail transfer: its exactness, its symmetries, and pictures of every kind."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from moved_disc import Truth, draw_loop, psnr

from loopanimate_core.detail import DetailSettings, transfer
from loopanimate_core.detail.matte import split_layers
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import Picture, fit_pixels

RIGID = DetailSettings(mode="rigid")


def drawn(loop) -> torch.Tensor:
    return torch.stack(list(loop))


@pytest.mark.parametrize("name", ["swaying", "rocking"])
def test_it_is_closer_to_the_truth_than_the_enlarged_frames(name, request):
    truth: Truth = request.getfixturevalue(name)
    ours = drawn(transfer(truth.small, truth.still, truth.mask, RIGID))
    enlarged = drawn(transfer(truth.small, truth.still, truth.mask, DetailSettings(mode="off")))
    assert psnr(ours[1:], truth.frames[1:]) > 38.0
    assert psnr(ours[1:], truth.frames[1:]) > psnr(enlarged[1:], truth.frames[1:]) + 5.0


@pytest.mark.parametrize("mode", ["rigid", "elastic"])
def test_frame_0_is_the_still(swaying, mode):
    loop = transfer(swaying.small, swaying.still, swaying.mask, DetailSettings(mode=mode))
    assert torch.equal(loop[0], swaying.still)
    # and what is drawn beside it does not jump: the layers put together are the still too
    assert np.abs(loop._drawer.draw(0) - swaying.still.numpy()).max() < 1e-5


@pytest.mark.parametrize("mode", ["rigid", "elastic"])
def test_nothing_moves_when_the_frames_do_not(swaying, mode):
    frames = swaying.small[:1].expand(6, -1, -1, -1)
    loop = transfer(frames, swaying.still, swaying.mask, DetailSettings(mode=mode))
    assert loop.motion is not None and loop.motion.object.model == "rest"
    assert (drawn(loop) - swaying.still).abs().max() < 1e-5


def test_a_loop_rotated_in_time_gives_the_loop_rotated(swaying):
    start = 3
    ours = drawn(transfer(swaying.small, swaying.still, swaying.mask, RIGID))
    rotated = drawn(
        transfer(swaying.small.roll(-start, 0), swaying.frames[start], swaying.masks[start], RIGID)
    )
    assert psnr(rotated.roll(start, 0), ours) > 35.0


def test_a_mirrored_loop_gives_the_mirrored_result(rocking):
    ours = drawn(transfer(rocking.small, rocking.still, rocking.mask, RIGID))
    mirrored = drawn(
        transfer(rocking.small.flip(2), rocking.still.flip(1), rocking.mask.flip(1), RIGID)
    )
    assert psnr(mirrored.flip(2), ours) > 45.0


def test_a_larger_still_gives_the_same_loop_larger(swaying):
    large = draw_loop(192, 192)
    assert psnr(drawn(transfer(large.small, large.still, large.mask, RIGID)), large.frames) > 36.0


def test_at_twice_the_rate_every_second_frame_is_the_old_one(swaying):
    old = transfer(swaying.small, swaying.still, swaying.mask, RIGID, frames_fps=8)
    new = transfer(
        swaying.small,
        swaying.still,
        swaying.mask,
        DetailSettings(mode="rigid", fps=16),
        frames_fps=8,
    )
    assert len(new) == 2 * len(old) and new.fps == 16
    assert (drawn(new)[::2] - drawn(old)).abs().max() < 1e-4
    assert new.motion is not None
    shift = new.motion.object.poses[:, 0]
    bends = shift.roll(1) - 2 * shift + shift.roll(-1)
    assert bends.abs().max() < 0.25 * shift.abs().max()  # even steps, round the seam too


def test_the_object_alone_over_the_background_is_the_opaque_loop(swaying):
    opaque = transfer(swaying.small, swaying.still, swaying.mask, RIGID)
    alone = transfer(
        swaying.small, swaying.still, swaying.mask, DetailSettings(mode="rigid", transparent=True)
    )
    layers = split_layers(swaying.still.numpy(), swaying.mask.numpy())
    background = torch.from_numpy(layers.background)
    for frame, rgba in zip(opaque, alone, strict=True):
        colour, alpha = rgba[..., :3], rgba[..., 3:]
        assert rgba.shape == (96, 96, 4)
        difference = (colour * alpha + (1 - alpha) * background - frame).abs()
        assert difference.mean() < 0.001 and difference.max() < 0.1
    assert alone[0][..., 3].mean() == pytest.approx(float(swaying.mask.mean()), rel=0.05)


def test_the_residual_brings_a_change_of_light(swaying):
    frames = swaying.small.clone()
    frames[5, 10:20, 10:20] += 0.3 * torch.ones(10, 10, 3)
    plain, lit = (
        transfer(
            frames, swaying.still, swaying.mask, DetailSettings(mode="rigid", residual=strength)
        )
        for strength in (0.0, 1.0)
    )
    change = lit[5] - plain[5]
    assert change[24:36, 24:36].mean() > 0.15
    assert (lit[0] - swaying.still).abs().max() == 0.0
    assert change[70:, 70:].abs().max() < 0.02


def test_the_residual_brings_a_blink_that_moves_with_the_object(swaying):
    """A lid is drawn over the disc's middle in some frames, wherever the disc is in them."""
    blinking = (2, 3, 4)
    with_lid = swaying.small.clone()
    bare = transfer(swaying.small, swaying.still, swaying.mask, RIGID)
    assert bare.motion is not None
    size = swaying.small.shape[2]
    poses = bare.motion.object.poses
    middle = bare.motion.object.centre + poses[:, :2]
    at = ((middle + 1.0) * size / 2.0).round().long()
    for index in blinking:
        x, y = (int(place) for place in at[index])
        with_lid[index, y - 4 : y + 4, x - 4 : x + 4] = torch.tensor([0.05, 0.05, 0.05])
    settings = DetailSettings(mode="rigid", residual=1.0)
    shown = drawn(transfer(with_lid, swaying.still, swaying.mask, settings))
    plain = drawn(transfer(with_lid, swaying.still, swaying.mask, RIGID))
    scale = swaying.still.shape[1] // size
    for index in range(len(shown)):
        x, y = (int(place) * scale for place in at[index])
        darker = (plain - shown)[index, y - 4 : y + 4, x - 4 : x + 4].mean()
        assert darker > 0.1 if index in blinking else darker.abs() < 0.05


def test_a_clean_plate_is_what_is_uncovered(swaying):
    plate = torch.zeros(96, 96, 3)
    plate[..., 0] = 1.0
    loop = transfer(swaying.small, swaying.still, swaying.mask, RIGID, plate=plate)
    uncovered = loop[2][40:56, 27:32]  # at its farthest to the right, the disc has left these
    assert (uncovered - plate[0, 0]).abs().max() < 0.05
    assert (loop[2][:, :10] - swaying.still[:, :10]).abs().max() < 1e-6


def test_memory_does_not_grow_with_the_loop(swaying):
    loop = transfer(
        swaying.small,
        swaying.still,
        swaying.mask,
        DetailSettings(mode="rigid", fps=240),
        frames_fps=24,
    )
    tracemalloc.start()
    peaks = []
    for _ in loop:
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert len(loop) == 100
    assert peaks[-1] <= 1.1 * max(peaks[:10])


MASKS = {
    "empty": lambda mask: torch.zeros_like(mask),
    "full": lambda mask: torch.ones_like(mask),
    "touching the edge": lambda mask: torch.cat([torch.ones(96, 30), torch.zeros(96, 66)], 1),
    "two objects": lambda mask: mask * (torch.arange(96) // 8 % 6 != 0).float(),
    "of low resolution": lambda mask: fit_pixels(mask[..., None], 24, 24)[..., 0],
    "soft": lambda mask: 0.9 * mask + 0.05,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("mode", ["auto", "rigid", "elastic"])
def test_any_mask_gives_a_loop(swaying, mask, mode):
    loop = transfer(
        swaying.small, swaying.still, MASKS[mask](swaying.mask), DetailSettings(mode=mode)
    )
    frames = drawn(loop)
    assert frames.shape == swaying.frames.shape
    assert frames.isfinite().all() and frames.min() >= 0.0 and frames.max() <= 1.0
    assert torch.equal(frames[0], swaying.still)


def test_a_still_smaller_than_the_frames(swaying):
    still, mask = fit_pixels(swaying.still, 24, 24), fit_pixels(swaying.mask[..., None], 24, 24)
    loop = transfer(swaying.small, still, mask[..., 0], RIGID)
    assert drawn(loop).shape == (10, 24, 24, 3)
    truth = torch.stack([fit_pixels(frame, 24, 24) for frame in swaying.frames])
    assert psnr(drawn(loop), truth) > 25.0


def test_a_tiny_grey_still():
    grey = torch.full((8, 8, 3), 0.5)
    loop = transfer(torch.full((3, 8, 8, 3), 0.5), grey, torch.ones(8, 8))
    assert (drawn(loop) - 0.5).abs().max() < 1e-6


def test_a_picture_with_soft_transparency(swaying):
    soft = fit_pixels(fit_pixels(swaying.mask[..., None], 32, 32), 96, 96)[..., 0]
    picture = Picture(swaying.still, soft)
    frames = torch.stack(
        [
            torch.lerp(torch.ones(3), frame, mask[..., None])
            for frame, mask in zip(swaying.frames, swaying.masks, strict=True)
        ]
    )
    small = torch.stack([fit_pixels(frame, 48, 48) for frame in frames])
    loop = transfer(small, picture, settings=DetailSettings(transparent=True))
    alpha = loop[0][..., 3]
    assert (alpha - soft).abs()[soft > 0.02].max() < 1e-4
    seen = alpha > 0.5
    assert (loop[0][..., :3] - swaying.still)[seen].abs().max() < 1e-3


def test_the_frames_show_the_middle_of_a_wider_still(swaying):
    still = torch.zeros(96, 160, 3)
    still[:, 32:128] = swaying.still
    mask = torch.zeros(96, 160)
    mask[:, 32:128] = swaying.mask
    whole = drawn(transfer(swaying.small, still, mask, RIGID))
    assert whole.shape == (10, 96, 160, 3)
    assert psnr(whole[:, :, 36:124], swaying.frames[:, :, 4:92]) > 36.0
    cropped = transfer(swaying.small, still, mask, DetailSettings(mode="rigid", size="96x96"))
    assert psnr(drawn(cropped), whole[:, :, 32:128]) > 36.0
    of_the_frames = transfer(
        swaying.small, still, fit_pixels(swaying.mask[..., None], 48, 48)[..., 0], RIGID
    )
    assert psnr(drawn(of_the_frames), whole) > 30.0


def test_the_motion_goes_on_outside_the_frames(swaying):
    """What the crop of the model cut off moves with the rest of the object."""
    wide = draw_loop(96, 192, shift=0.1)
    middle = torch.stack([fit_pixels(frame[:, 72:120], 64, 32) for frame in wide.frames])
    loop = drawn(transfer(middle, wide.still, wide.mask, RIGID))
    assert psnr(loop, wide.frames) > 30.0


@pytest.mark.parametrize(
    ("still", "frames"),
    [
        ((200, 320), (72, 128)),  # 16:10 seen in 16:9
        ((150, 320), (72, 128)),  # wider than 16:9
        ((301, 200), (128, 72)),  # 2:3 seen in 9:16, with an odd side
        ((320, 240), (128, 72)),  # 3:4
        ((320, 150), (128, 72)),  # a long phone
        ((200, 320), (96, 96)),
    ],
)
def test_frames_of_a_shape_near_the_stills_are_mapped_onto_it(
    still: tuple[int, int], frames: tuple[int, int]
) -> None:
    truth = draw_loop(*still, shift=0.12, turn=0.3)
    seen = torch.stack([fit_pixels(frame, *frames) for frame in truth.frames])
    found = drawn(transfer(seen, truth.still, truth.mask, RIGID))
    assert found.shape == truth.frames.shape and psnr(found, truth.frames) > 45.0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_loops(swaying, count):
    loop = transfer(swaying.small[:count], swaying.still, swaying.mask, RIGID)
    assert len(loop) == count and torch.equal(loop[0], swaying.still)


def test_without_a_mask_the_object_is_looked_for(swaying):
    loop = transfer(swaying.small, swaying.still)
    assert psnr(drawn(loop), swaying.frames) > 33.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"frames": torch.full((4, 48, 48, 3), float("nan"))},
            "frame 0 holds values that are not finite",
        ),
        ({"frames": torch.zeros(4, 48, 48)}, r"frames must have the shape \[F, H, W, 3\]"),
        ({"frames": torch.zeros(4, 4, 4, 3)}, "each side must be 8 or more"),
        ({"still": torch.zeros(96, 96)}, r"a still must have the shape \[H, W, 3\] or \[H, W, 4\]"),
        ({"still": torch.full((96, 96, 3), float("inf"))}, "the still holds values"),
        ({"mask": torch.zeros(96, 50)}, "the mask is 50 x 96 pixels, the still 96 x 96"),
        ({"mask": torch.zeros(3, 96, 96)}, r"a mask must have the shape \[H, W\]"),
        ({"still": torch.full((96, 96, 3), 255.0)}, "the still must have values between 0 and 1"),
        ({"frames": torch.full((4, 48, 48, 3), 9.0)}, "the frames must have values between 0 and"),
        ({"still": torch.full((96, 96, 4), float("nan"))}, "the still holds values"),
        ({"plate": torch.full((96, 96, 3), float("nan"))}, "the plate holds values"),
        ({"device": "nowhere"}, "Device 'nowhere' is not known"),
        (
            {"autoencoder": lambda frames: frames[:, :5]},
            "the autoencoder must return finite frames",
        ),
        ({"plate": torch.zeros(10, 10, 3)}, r"the plate must be \[96, 96, 3\]"),
        ({"frames_fps": 0.0}, "the frames' own fps must be above 0"),
        (
            {"mask": torch.zeros(96, 96), "settings": DetailSettings(transparent=True)},
            "the mask is empty",
        ),
    ],
)
def test_bad_input_is_one_sentence(swaying, change, message):
    arguments = {"frames": swaying.small, "still": swaying.still, "mask": swaying.mask} | change
    with pytest.raises(LoopAnimateError, match=message):
        transfer(**arguments)
