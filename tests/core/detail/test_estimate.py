"""The motion that is read from the frames, and its spline round the ring."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from moved_disc import draw_loop, psnr

from loopanimate_core.detail import DetailSettings, fit, modes, transfer
from loopanimate_core.detail.chunks import CHUNK_PX, over_frames, parallel_frames
from loopanimate_core.detail.fit import _bending, _solve_ring
from loopanimate_core.detail.maps import bend_at, bend_basis
from loopanimate_core.detail.motion import LayerMotion, resample_ring
from loopanimate_core.detail.pose import Anchor, generators, inverse, matrices
from loopanimate_core.picture.images import fit_pixels


def motion_of(truth, **options):
    motion = transfer(truth.small, truth.still, truth.mask, **options).motion
    assert motion is not None
    return motion


def test_a_translation_is_found_as_one(swaying):
    found = motion_of(swaying).object
    assert found.model == "translation"
    wave = torch.sin(2 * math.pi * torch.arange(10) / 10).double()
    assert (found.poses[:, 0] - 0.15 * wave).abs().max() < 0.004  # a tenth of a pixel of the frames
    assert found.poses[:, 1].abs().max() < 0.004
    assert found.poses[0].abs().max() == 0.0


def test_a_turn_is_found_as_one():
    found = motion_of(draw_loop(shift=0.0, turn=1.0)).object
    assert found.model in ("similarity", "affine")
    wave = torch.sin(2 * math.pi * torch.arange(10) / 10).double()
    assert (found.poses[:, 2] - wave).abs().max() < 0.03


def test_an_autoencoder_that_distorts_is_seen_through(swaying):
    """An error fixed to the picture's grid is no motion."""
    grid = 0.15 * torch.sin(torch.arange(48) * 0.9)
    blemish = (grid[:, None] * grid[None, :])[..., None]

    def autoencoder(frames):
        return (fit_pixels_all(frames) + 4.0 * blemish).clamp(0, 1)

    def fit_pixels_all(frames):
        return torch.stack([fit_pixels(fit_pixels(frame, 24, 24), 48, 48) for frame in frames])

    wave = 0.15 * torch.sin(2 * math.pi * torch.arange(10) / 10).double()
    errors = []
    for through in (None, autoencoder):
        motion = transfer(
            autoencoder(swaying.small), swaying.still, swaying.mask, autoencoder=through
        ).motion
        assert motion is not None
        errors.append(float((motion.object.poses[:, 0] - wave).abs().max()))
    assert errors[1] < 0.5 * errors[0] and errors[1] < 0.006


def test_a_moving_background_is_found():
    truth = draw_loop()
    rng = np.random.default_rng(0)
    texture = cv2.resize(
        rng.random((12, 12, 3), np.float32), (96, 96), interpolation=cv2.INTER_CUBIC
    )
    frames = []
    for index in range(10):
        way = 6.0 * math.sin(2 * math.pi * index / 10)
        moved = cv2.warpAffine(
            texture,
            np.array([[1, 0, 0], [0, 1, way]]),
            (96, 96),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        frames.append(
            torch.lerp(torch.from_numpy(moved), truth.frames[index], truth.masks[index][..., None])
        )
    true = torch.stack(frames).clamp(0, 1)
    small = torch.stack([fit_pixels(frame, 48, 48) for frame in true])
    loop = transfer(small, true[0], truth.mask, DetailSettings(mode="rigid"))
    assert loop.motion is not None
    assert loop.motion.background.model == "translation"
    wave = 6.0 / 48 * torch.sin(2 * math.pi * torch.arange(10) / 10).double()
    assert (loop.motion.background.poses[:, 1] - wave).abs().max() < 0.01
    assert psnr(torch.stack(list(loop)), true) > 28.0


def test_what_no_affine_map_follows_is_bent():
    rng = np.random.default_rng(1)
    texture = cv2.resize(
        rng.random((12, 12, 3), np.float32), (96, 96), interpolation=cv2.INTER_CUBIC
    )
    y, x = np.indices((96, 96)).astype(np.float32)
    frames = []
    for index in range(8):
        way = 2.5 * math.sin(2 * math.pi * index / 8)
        bent = (x + way * np.sin(2 * np.pi * y / 96)).astype(np.float32)
        frames.append(
            cv2.remap(texture, bent, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        )
    true = torch.from_numpy(np.stack(frames)).clamp(0, 1)
    loop = transfer(true, true[0], torch.ones(96, 96))
    assert loop.motion is not None and loop.motion.object.model == "elastic"
    still = true[:1].expand_as(true)
    assert psnr(torch.stack(list(loop)), true) > psnr(still, true) + 8.0


def test_the_spline_goes_through_its_values_and_closes():
    values = torch.randn(7, 2, generator=torch.Generator().manual_seed(0)).double()
    finer = resample_ring(values, 28)
    assert torch.equal(finer[::4], values)
    third = (finer - 3 * finer.roll(1, 0) + 3 * finer.roll(2, 0) - finer.roll(3, 0)).abs()
    assert third.max() < 0.5 * values.abs().max()  # no kink, at the seam neither


def test_a_smooth_swing_is_met_between_the_frames():
    wave = torch.sin(2 * math.pi * torch.arange(16) / 16).double()[:, None]
    finer = torch.sin(2 * math.pi * torch.arange(48) / 48).double()[:, None]
    assert (resample_ring(wave, 48) - finer).abs().max() < 1e-3
    # a count that is no multiple, and fewer frames than there were
    assert (
        resample_ring(wave, 11) - torch.sin(2 * math.pi * torch.arange(11) / 11).double()[:, None]
    ).abs().max() < 1e-3


def test_whole_turns_go_on_evenly():
    poses = torch.zeros(8, 6, dtype=torch.float64)
    poses[:, 2] = (
        torch.remainder(2 * math.pi * torch.arange(8) / 8 + math.pi, 2 * math.pi) - math.pi
    )
    poses[0] = 0.0
    spun = LayerMotion("similarity", poses, torch.zeros(2).double()).at(32).poses[:, 2]
    steps = torch.remainder(spun.roll(-1) - spun, 2 * math.pi)
    assert (steps - 2 * math.pi / 32).abs().max() < 1e-6


def test_poses_and_their_inverses():
    generator = torch.Generator().manual_seed(0)
    poses = 0.3 * torch.randn(5, 6, generator=generator).double()
    centre = torch.tensor([0.2, -0.1]).double()
    maps, back = matrices(poses, centre), inverse(matrices(poses, centre))
    assert torch.allclose(back[..., :2] @ maps[..., :2], torch.eye(2).double().expand(5, 2, 2))
    assert torch.allclose(
        back[..., :2] @ maps[..., 2:] + back[..., 2:], torch.zeros(5, 2, 1).double(), atol=1e-12
    )
    assert torch.allclose(
        matrices(torch.zeros(1, 6).double(), centre)[0], torch.eye(2, 3).double(), atol=1e-12
    )


@pytest.mark.parametrize("column", range(6))
def test_the_slope_of_the_map_back(column):
    poses = 0.2 * torch.randn(1, 6, generator=torch.Generator().manual_seed(column)).double()
    centre, point = torch.tensor([0.1, 0.3]).double(), torch.tensor([0.4, -0.2, 1.0]).double()
    step = torch.zeros(6).double()
    step[column] = 1e-6
    source = inverse(matrices(poses, centre))[0] @ point
    nudged = inverse(matrices(poses + step, centre))[0] @ point
    slope = -generators(poses, centre, [column])[0, 0] @ torch.cat([source, torch.ones(1).double()])
    assert torch.allclose((nudged - source) / 1e-6, slope, atol=1e-4)


@pytest.mark.parametrize("count", [2, 3, 4, 6, 9, 34])
def test_the_ring_is_solved_like_the_whole_system(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    root = torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)
    blocks, metric = root @ root.transpose(1, 2), torch.tensor([1.0, 2.0, 0.5]).double()
    right = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    bending = _bending(count)
    found = _solve_ring(blocks, bending, metric, right)
    system = torch.block_diag(*blocks) + torch.kron(bending, torch.diag(metric))
    expected = torch.linalg.solve(system[3:, 3:], right.flatten()[3:]).reshape(-1, 3)
    assert float(found[0].abs().max()) == 0.0
    torch.testing.assert_close(found[1:], expected, rtol=1e-6, atol=1e-8)


def test_a_bend_is_undone_and_its_slopes_are_right() -> None:
    generator = torch.Generator().manual_seed(3)
    box = torch.tensor([-0.5, -0.8, 0.7, 0.4]).double()
    amounts = 0.05 * torch.randn(4, modes.COUNT, generator=generator).double()
    points = torch.rand(4, 5, 5, 2, generator=generator).double() - 0.5
    moved = points + modes.shift(points, amounts, box)
    torch.testing.assert_close(modes.undone(moved, amounts, box), points, atol=2e-3, rtol=0.0)
    step = 1e-5
    for axis, slope in zip((1, 0), modes.slopes(points, amounts, box), strict=True):
        nudge = torch.zeros(2).double()
        nudge[axis] = step
        rise = modes.shift(points + nudge, amounts, box) - modes.shift(points, amounts, box)
        torch.testing.assert_close(rise[..., 1 - axis] / step, slope, atol=1e-3, rtol=1e-3)
        assert rise[..., axis].abs().max() == 0.0


def test_the_slopes_of_a_bent_layer_are_those_of_the_picture() -> None:
    truth = draw_loop()
    generator = torch.Generator().manual_seed(0)
    picture = fit.blur(truth.frames[:1].permute(0, 3, 1, 2), 4.0)[0]
    scene = fit.Scene(
        picture[None],
        torch.cat([picture, torch.ones_like(picture[:1])]),
        torch.zeros(1, 3, 1, 1),
        torch.ones(1, 96, 96),
    )
    anchor = Anchor(torch.zeros(2).double(), 0.5, torch.tensor([-0.6, -0.6, 0.6, 0.6]))
    poses = 0.05 * torch.randn(1, 12, generator=generator).double()
    points = fit.points_back(poses, anchor, scene.frames)
    along_x, along_y, by_x, by_y = fit._slopes(
        scene.behind, torch.cat(fit.gradients(scene.paint)), points, anchor, poses[:, 6:].float()
    )
    slopes = torch.cat(
        [along_x[:, None] * by_x[:, 3:, None], along_y[:, None] * by_y[:, 3:, None]], 1
    )
    middle = (slice(None), slice(None), slice(30, 66), slice(30, 66))
    for column in range(6, 12):
        nudge = torch.zeros(1, 12).double()
        nudge[0, column] = 0.02
        ahead, back = (
            fit.compose(scene, fit.points_back(poses + way * nudge, anchor, scene.frames))
            for way in (1, -1)
        )
        measured, expected = ((ahead - back) / 0.04)[middle], slopes[:, column - 6][middle]
        assert float((measured - expected).norm() / measured.norm()) < 0.15


@pytest.mark.parametrize("bent", [False, True])
def test_normal_equations_are_those_of_every_slope_by_itself(bent: bool) -> None:
    """The colours are summed before the parameters; the plain sum is over all slopes of all colours."""
    torch.manual_seed(0)
    along_x, along_y, error = torch.randn(3, 2, 3, 5, 7).unbind()
    by_x, by_y = torch.randn(2, 2, 6 if bent else 3, 5, 7).unbind()
    certain = torch.rand(2, 5, 7)
    normal, pull = fit._summed(along_x, along_y, by_x, by_y, error, certain)
    parts = [(along_x, by_x[:, :3]), (along_y, by_y[:, :3])]
    parts += [(along_x, by_x[:, 3:]), (along_y, by_y[:, 3:])]
    slopes = torch.cat([along[:, None] * by[:, :, None] for along, by in parts], 1)
    weighted = slopes * certain[:, None, None]
    expected = torch.einsum("pichw,pjchw->pij", weighted, slopes)
    torch.testing.assert_close(normal, expected, atol=1e-4, rtol=1e-4)
    expected = torch.einsum("pichw,pchw->pi", weighted, error)
    torch.testing.assert_close(pull[..., 0], expected, atol=1e-4, rtol=1e-4)


def test_a_bend_at_points_is_the_basis_times_its_knots() -> None:
    torch.manual_seed(0)
    points, bend = torch.rand(2, 30, 2) * 2 - 1, torch.randn(2, 6, 6, 2)
    box = torch.tensor([-0.7, -0.6, 0.8, 0.9])
    for index in range(2):
        expected = bend_basis(points[index], 6, box) @ bend[index].reshape(-1, 2)
        found = bend_at(points, bend, box)[index]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_threads_do_not_change_the_estimate() -> None:
    work, seen = (lambda at: (at.start, at.stop)), []
    for threads in (1, 3):
        with parallel_frames(threads):
            assert torch.get_num_threads() == 1
            seen.append(over_frames(work, 10, CHUNK_PX // 3))
    assert seen[0] == seen[1] == [(0, 3), (3, 6), (6, 9), (9, 10)]


@pytest.mark.parametrize("kind", ["bend", "wave"])
def test_a_thing_that_bends_is_followed(kind: str) -> None:
    """More than the free bend could: the tip moves by half of the thing's height."""
    y, x = np.indices((96, 96)).astype(np.float32)
    rng = np.random.default_rng(2)
    texture = cv2.resize(rng.random((8, 8, 3), np.float32), (96, 96), interpolation=cv2.INTER_CUBIC)
    cover = ((abs(x - 48) < 14) & (abs(y - 48) < 30)).astype(np.float32)
    paint = np.dstack([texture * cover[..., None], cover])
    frames, masks = [], []
    for index in range(10):
        phase = 2 * math.pi * index / 10
        above = (78 - y) / 60
        if kind == "bend":
            from_x, from_y = x - 18 * math.sin(phase) * above * np.abs(above), y
        else:
            across = math.pi * (x - 48) / 14
            from_x, from_y = x, y + 5 * (np.sin(across - phase) - np.sin(across))
        moved = cv2.remap(
            paint, from_x.astype(np.float32), from_y.astype(np.float32), cv2.INTER_LINEAR
        )
        frames.append(moved[..., :3] + (1 - moved[..., 3:]) * np.array([0.2, 0.6, 0.9], np.float32))
        masks.append(moved[..., 3])
    true = torch.from_numpy(np.stack(frames)).clamp(0, 1)
    small = torch.stack([fit_pixels(frame, 48, 48) for frame in true])
    loop = transfer(small, true[0], torch.from_numpy(masks[0]), DetailSettings(mode="rigid"))
    assert loop.motion is not None and loop.motion.object.model == "elastic"
    still = true[:1].expand_as(true)
    assert psnr(torch.stack(list(loop)), true) > psnr(still, true) + 6.0


def redrawn(truth, strength=0.2):
    """The frames of a model that draws the object anew in each: coarse colours that change from frame to frame."""
    generator = torch.Generator().manual_seed(0)
    count, height, width = truth.small.shape[:3]
    colours = torch.randn(count, 3, 6, 6, generator=generator)
    colours[0] = 0.0
    coarse = torch.nn.functional.interpolate(colours, (height, width), mode="bicubic")
    cover = torch.stack([fit_pixels(mask[..., None], height, width) for mask in truth.masks])
    return (truth.small + strength * coarse.permute(0, 2, 3, 1) * cover).clamp(0, 1)


def test_motion_is_found_in_frames_that_are_drawn_badly():
    truth = draw_loop(shift=0.0, turn=0.15)
    motion = transfer(redrawn(truth), truth.still, truth.mask).motion
    assert motion is not None and motion.object.model == "similarity"
    wave = 0.15 * torch.sin(2 * math.pi * torch.arange(10) / 10).double()
    share = float((motion.object.poses[:, 2] * wave).sum() / wave.square().sum())
    assert 0.4 < share < 1.1  # what is drawn anew hides a part of it


def test_frames_that_are_drawn_badly_in_place_are_at_rest():
    truth = draw_loop(shift=0.0)
    motion = transfer(redrawn(truth), truth.still, truth.mask).motion
    assert motion is not None and motion.object.model == "rest"
