"""Which motion does a clip show? Measured on the pictures alone, so that a model's loops can be scored.

Four tracks over the frames (centroid x and y, size, angle) are measured on a soft mask of the moving object. A
verb's score is the range of its track divided by the verb's nominal amplitude. The highest score wins; if all are
small, the clip stays still. Nothing is learned, so the result favours no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .motion import CORE_VERBS, SHIFT, SPAN_FRAMES, STILL, SWELL, TILT_RAD, Pose

BOBBING, SWAYING, ROCKING, PULSING = CORE_VERBS[:4]
NOMINAL = {BOBBING: SHIFT, SWAYING: SHIFT, ROCKING: TILT_RAD, PULSING: SWELL}
STILL_BELOW = 0.25
MASK_THRESHOLD = 0.12

_RINGS, _BEARINGS = 12, 128
_REACH = 2.0  # outermost ring, in root mean square radii: the tip of a bar is at 1.7
_LARGEST_TURN_RAD = math.pi / 3
_NOISE_VARIANCE = 1e-3  # weaker texture does not show the angle
_TURN_COST = (
    0.3  # correlation that a turn of one radian must gain: a round, plain object does not turn
)
_CYCLES_TRIED = torch.arange(0.25, 3.01, 0.05)


@dataclass(frozen=True)
class MotionReading:
    """What a clip shows.

    Attributes:
        verb: one of `CORE_VERBS`.
        scores: per moving verb, range divided by nominal amplitude; 2 is a full swing of normal strength.
        ranges: peak to peak, in half-widths (x, y), radians, natural logarithm of the size.
        tracks: displacement from frame 0, in the units of the renderer's poses.
    """

    verb: str
    scores: dict[str, float]
    ranges: dict[str, float]
    tracks: Pose

    @property
    def strength(self) -> float:
        """Score of the strongest motion, also if it is too small to count."""
        return max(self.scores.values())

    def cycles(self, source_frames: Sequence[int] | None = None) -> float:
        """Speed of the strongest motion in cycles per `SPAN_FRAMES`: the best fitting sin(2π c t).

        `source_frames`: source frame of each of the first frames (default: 0, 1, 2, …). For a loop, those of
        the forward half only, because the way back reverses the motion.
        """
        track = _track_of(max(self.scores, key=self.scores.__getitem__), self.tracks)
        times = (
            torch.arange(len(track)) if source_frames is None else torch.as_tensor(source_frames)
        )
        waves = (2.0 * math.pi / SPAN_FRAMES * _CYCLES_TRIED[:, None] * times).sin()
        explained = (waves @ track[: len(times)]).square() / waves.square().sum(1)
        return float(_CYCLES_TRIED[explained.argmax()])


def read_motion(frames: Tensor, masks: Tensor) -> MotionReading:
    """Measure the motion of one object in `frames` [F, H, W, 3] with its soft `masks` [F, H, W] in 0..1."""
    tracks = track_object(frames, masks)
    ranges = {verb: _range(_track_of(verb, tracks)) for verb in NOMINAL}
    scores = {verb: ranges[verb] / amplitude for verb, amplitude in NOMINAL.items()}
    strongest = max(scores, key=scores.__getitem__)
    verb = strongest if scores[strongest] >= STILL_BELOW else STILL
    return MotionReading(verb, scores, ranges, tracks)


def track_object(frames: Tensor, masks: Tensor) -> Pose:
    """Pose of the object in every frame, relative to frame 0; arguments as in `read_motion`."""
    masks = masks.float()
    height_px, width_px = masks.shape[1:]
    x_axis = _pixel_axis(width_px, width_px)
    y_axis = _pixel_axis(height_px, width_px)
    area = masks.sum((1, 2)).clamp(min=1.0)  # an object that vanished counts as one pixel
    x = (masks.sum(1) @ x_axis) / area
    y = (masks.sum(2) @ y_axis) / area
    log_scale = 0.5 * (area / area[0]).log()
    from_centre = (x_axis - x[0]).square() + (y_axis - y[0]).square()[:, None]
    spread = (masks[0] * from_centre).sum() / area[0]
    reach = _REACH * spread.clamp(min=1e-6).sqrt() * log_scale.exp()
    soft = F.avg_pool2d(masks[None], 3, stride=1, padding=1)[
        0
    ]  # smooths the pixel steps, which do not turn
    turn = _turn(_ring_profile(frames, soft, x, y, reach))
    return Pose(x - x[0], y - y[0], turn, log_scale)


def masks_from_background(
    frames: Tensor, background: Tensor, threshold: float = MASK_THRESHOLD
) -> Tensor:
    """Soft masks [F, H, W] of what differs from the known `background` [H, W, 3].

    A pixel counts half if its colour differs by `threshold` (root mean square of the channels), fully at 4/3
    of it, and not at all below 2/3: that ignores a decoder's noise and keeps edges soft.
    """
    difference = (frames - background).square().mean(-1).sqrt()
    return (1.5 * difference / threshold - 1.0).clamp(0.0, 1.0)


def _range(track: Tensor) -> float:
    return float(track.max() - track.min())


def _track_of(verb: str, tracks: Pose) -> Tensor:
    return {
        BOBBING: tracks.y,
        SWAYING: tracks.x,
        ROCKING: tracks.angle_rad,
        PULSING: tracks.log_scale,
    }[verb]


def _pixel_axis(count: int, width_px: int) -> Tensor:
    """Positions of pixel centres from the middle, in half-widths of the picture."""
    return (torch.arange(count) + 0.5 - 0.5 * count) * (2.0 / width_px)


def _ring_profile(frames: Tensor, masks: Tensor, x: Tensor, y: Tensor, reach: Tensor) -> Tensor:
    """The object along rings around its centre, minus the mean of each ring: [F, channels · rings, bearings].

    Channels are the silhouette, and the colours minus the object's mean colour. `reach` [F]: radius of the
    outermost ring in half-widths; it grows with the object, so that size does not matter.
    """
    height_px, width_px = masks.shape[1:]
    mean_colour = (frames[0] * masks[0, ..., None]).sum((0, 1)) / masks[0].sum().clamp(min=1.0)
    content = torch.cat([masks[..., None], (frames - mean_colour) * masks[..., None]], -1)
    radii = (torch.arange(_RINGS) + 0.5) / _RINGS
    bearing = torch.arange(_BEARINGS) * (2.0 * math.pi / _BEARINGS)
    way = torch.stack([bearing.cos(), bearing.sin()], -1) * radii[:, None, None]
    points = torch.stack([x, y], -1)[:, None, None] + reach[:, None, None, None] * way
    points = points * torch.tensor([1.0, width_px / height_px])
    rings = F.grid_sample(content.permute(0, 3, 1, 2), points, align_corners=False)
    by_length = radii.sqrt()[:, None]  # so that longer rings count more
    return ((rings - rings.mean(-1, keepdim=True)) * by_length).flatten(1, 2)


def _turn(profile: Tensor) -> Tensor:
    """Clockwise angle [F] that best turns the rings of frame 0 into those of every frame; profile [F, n, bearings]."""
    spectrum = torch.fft.rfft(profile)
    match = torch.fft.irfft(spectrum[:1].conj() * spectrum, n=_BEARINGS).sum(1)
    energy = profile.square().sum((1, 2))
    match = match / ((energy[:1] * energy).sqrt() + _NOISE_VARIANCE * profile[0].numel())[:, None]
    angles = (torch.arange(_BEARINGS) - _BEARINGS // 2) * (2.0 * math.pi / _BEARINGS)
    match = match.roll(_BEARINGS // 2, -1) - _TURN_COST * angles.square()
    best = match.masked_fill(angles.abs() > _LARGEST_TURN_RAD, -math.inf).argmax(-1, keepdim=True)
    before, at, after = (match.gather(1, best + shift)[:, 0] for shift in (-1, 0, 1))
    curvature = before - 2.0 * at + after
    between = torch.where(curvature < 0.0, 0.5 * (before - after) / curvature, 0.0).clamp(-0.5, 0.5)
    return angles[best[:, 0]] + between * (2.0 * math.pi / _BEARINGS)
