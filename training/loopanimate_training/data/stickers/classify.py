"""Which motion does a clip show? Measured on the pictures alone, so that a model's loops can be scored.

The still is known as object and background. In every frame of the forward half, the deformation of the object is
found that explains the frame best (Gauss-Newton on the pixels). What that moves where, as displacements of points of the
object over time, is compared with every verb at every speed: the verb that leaves least unexplained is read; if its
amplitude is small, the clip stays still. Nothing is learned, so the result favours no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .motion import FIELDS, FPS, MOVING_VERBS, SPEEDS, STILL, Deformation, Motion, deformation_at
from .render import Scene, axes, displaced

STILL_BELOW = 0.25  # of a verb's nominal amplitude
LARGEST_GAIN = 2.5
SECOND_EXPLAINS = 0.5  # of what the first verb leaves: then two verbs are read

# The fields that are fitted, with their usual size. The others (a scale, a turn around the base) are sums of these.
_USUAL = {
    "x": 0.25,
    "y": 0.25,
    "angle_rad": 0.4,
    "widen": 0.4,
    "heighten": 0.3,
    "lean": 0.35,
    "bend": 0.3,
    "wave_sin": 0.12,
    "wave_cos": 0.12,
}
_COMPARED_PX = 48  # square root of the area at which frames are compared: larger ones are shrunk
_BLURS_PX, _ITERATIONS = (1.3, 0.6), 5
_NOISE = 0.06  # of a pixel, as a standard deviation
_PRIOR_PIXELS = 60.0  # how many pixels the usual sizes count for
_STEP = 0.02  # of the usual size, for derivatives
_CONVERGED = 0.005  # of the usual size
_POINTS = 150  # of the object, for displacements


@dataclass(frozen=True)
class MotionReading:
    """What a clip shows.

    Attributes:
        verb, speed: keys of `VERBS` and `SPEEDS`.
        strength: amplitude as a multiple of the verb's nominal one, also if it is too small to count.
        explained: share of the motion that the verb explains.
        second_verb: of a clip with two motions; "" for one.
        displacements: `[n, k, 2]` of points of the object, in half-sides.
    """

    verb: str
    speed: str
    strength: float
    explained: float
    second_verb: str
    displacements: Tensor

    @property
    def verbs(self) -> tuple[str, ...]:
        return (self.verb, self.second_verb) if self.second_verb else (self.verb,)


def read_motion(frames: Tensor, scene: Scene, source_frames: Sequence[int]) -> MotionReading:
    """Measure the motion of the scene's object.

    Args:
        frames: `[n, H, W, 3]` in 0..1, in the order of time; frame 0 is the still.
        scene: the still, as these frames would show it (for a model's frames: after its VAE).
        source_frames: the number of each frame at `FPS`. For a loop give the forward half only, because the way
            back reverses the motion at another speed.
    """
    shown = _displacements(track_object(frames, scene), scene)
    shown = (
        shown - shown[:1]
    )  # a model's frames are blurred, which looks like an object of another size
    candidates = [(verb, speed) for verb in MOVING_VERBS for speed in SPEEDS]
    times_s = torch.tensor(source_frames, dtype=torch.float32) / FPS
    paths = torch.stack(
        [
            _displacements(deformation_at(Motion(verb, speed), times_s), scene)
            for verb, speed in candidates
        ]
    )
    gains, left = _explain(shown, paths)
    best = int(left.argmin())
    verb, speed = candidates[best]
    strength, total = float(gains[best]), float(shown.square().sum())
    second = ""
    if strength >= STILL_BELOW:
        rest = shown - gains[best] * paths[best]
        same_speed = [n for n, (v, s) in enumerate(candidates) if s == speed and v != verb]
        more, left_by_two = _explain(rest, paths[same_speed])
        place = int(left_by_two.argmin())
        helps = left_by_two[place] < (1.0 - SECOND_EXPLAINS) * left[best]
        large = more[place] >= STILL_BELOW and left[best] > 0.1 * total
        second = candidates[same_speed[place]][0] if helps and large else ""
    return MotionReading(
        verb if strength >= STILL_BELOW else STILL,
        speed,
        strength,
        1.0 - float(left[best]) / max(total, 1e-12),
        second,
        shown,
    )


def _explain(shown: Tensor, paths: Tensor) -> tuple[Tensor, Tensor]:
    """Best gain of every path [m, n, k, 2] for `shown` [n, k, 2], and the square sum it leaves unexplained."""
    energy = paths.square().sum((1, 2, 3)).clamp(min=1e-12)
    gains = ((paths * shown).sum((1, 2, 3)) / energy).clamp(0.0, LARGEST_GAIN)
    left = (shown - gains[:, None, None, None] * paths).square().sum((1, 2, 3))
    return gains, left


def _displacements(deformation: Deformation, scene: Scene) -> Tensor:
    """[n, k, 2] of up to `_POINTS` points of the object."""
    x_axis, y_axis = axes(*scene.size_px)
    rows, columns = (scene.layer[3] > 0.5).nonzero(as_tuple=True)
    every = max(1, len(rows) // _POINTS)
    points = x_axis[columns[::every]], y_axis[rows[::every]]
    x, y = displaced(points, deformation, scene.anchors)
    return torch.stack([x - points[0], y - points[1]], -1)


def track_object(frames: Tensor, scene: Scene) -> Deformation:
    """Deformation of the object in every frame [n, H, W, 3].

    Each search starts from the frame before, from where that one was heading, or from the still.
    """
    frames = frames.float()
    found = torch.zeros(len(frames), len(FIELDS))
    stages = [_blurred_stage(frames, scene, blur_px) for blur_px in _BLURS_PX]
    for number in range(len(frames)):
        last, before = found[max(0, number - 1)], found[max(0, number - 2)]
        starts = torch.stack([last, 2.0 * last - before, torch.zeros(len(FIELDS))])
        values = _best(starts, *stages[0], number)
        for blurred, blurred_scene in stages:
            values = _fit(blurred[number], blurred_scene, values)
        found[number] = values
    return Deformation.from_stacked(found)


def _best(starts: Tensor, frames: Tensor, scene: Scene, number: int) -> Tensor:
    """The one of the deformations [n, 11] that explains a frame best."""
    shown, _ = scene.draw(Deformation.from_stacked(starts))
    errors = (frames[number] - shown).flatten(1)
    return starts[int((errors.square() * _robust(errors)).sum(1).argmin())]


def _robust(errors: Tensor) -> Tensor:
    """Cauchy weights: pixels that nothing explains count little."""
    return 1.0 / (1.0 + (errors / (3.0 * _NOISE)).square())


def _blurred_stage(frames: Tensor, scene: Scene, blur_px: float) -> tuple[Tensor, Scene]:
    """Frames and scene as they are compared, shrunk and blurred."""

    def small(planes: Tensor) -> Tensor:
        return _blurred(_shrunk(planes), blur_px)

    background = small(scene.background.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    blurred = Scene(small(scene.layer[None])[0], background)
    blurred.__dict__["anchors"] = scene.anchors  # those of the sharp object
    return small(frames.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), blurred


def _fit(frame: Tensor, scene: Scene, start: Tensor) -> Tensor:
    """The deformation [11] that explains one frame [H, W, 3], by damped Gauss-Newton steps from `start`."""
    places = [FIELDS.index(name) for name in _USUAL]
    usual = torch.tensor(list(_USUAL.values()))
    nudges = torch.zeros(len(places) + 1, len(FIELDS))
    nudges[range(1, len(places) + 1), places] = _STEP * usual
    weight = _PRIOR_PIXELS * _NOISE**2
    values, damping, best_cost = start.clone(), 1.0, float("inf")
    best, normal, gradient = values, torch.zeros(len(places), len(places)), torch.zeros(len(places))
    for _ in range(_ITERATIONS):
        shown, _ = scene.draw(Deformation.from_stacked(values + nudges))
        error = (frame - shown[0]).flatten()
        scaled = values[places] / usual
        robust = _robust(error)
        cost = float((error.square() * robust).sum() + weight * scaled.square().sum())
        if cost < best_cost:
            best_cost, best = cost, values
            slopes = ((shown[1:] - shown[0]) / _STEP).flatten(1)
            normal = (slopes * robust) @ slopes.T
            gradient = (slopes * robust) @ error - weight * scaled
            damping *= 0.3
        else:
            damping *= 10.0
        ridge = torch.eye(len(places)) * (weight * (1.0 + damping))
        step = torch.linalg.solve(normal + ridge, gradient).clamp(-1.0, 1.0)
        if float(step.abs().max()) < _CONVERGED:
            break
        values = best.clone()
        values[places] += step * usual
    return best


def _shrunk(planes: Tensor) -> Tensor:
    """[n, c, H, W] averaged down to `_COMPARED_PX`; smaller ones stay."""
    height_px, width_px = planes.shape[2:]
    scale = _COMPARED_PX / math.sqrt(height_px * width_px)
    if scale >= 1.0:
        return planes
    return F.interpolate(
        planes, size=(round(scale * height_px), round(scale * width_px)), mode="area"
    )


def _blurred(planes: Tensor, sigma_px: float) -> Tensor:
    """Gaussian blur of [n, c, H, W], with the edge's pixels carried on."""
    radius = int(3.0 * sigma_px + 0.5)
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma_px).square())
    line = (line / line.sum()).expand(planes.shape[1], 1, -1)
    groups = planes.shape[1]
    padded = F.pad(planes, (radius,) * 4, mode="replicate")
    across = F.conv2d(padded, line[:, :, None], groups=groups)
    return F.conv2d(across, line[..., None], groups=groups)
