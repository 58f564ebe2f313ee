"""The measurements of a loop check, as pure functions.

Frames are the frames that play, `[P, H, W, 3]` in 0..1 or uint8; the last one is followed by the first.
Frames at full size are measured in bands of rows, which takes little memory beside the frames.
Step `i` leads from frame `i` to frame `i + 1`; the last step, `P - 1`, is the seam back to frame 0.
Distances are mean absolute differences in grey levels, 0..255.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

LEVELS = 255.0
COARSE_PX = 64  # shows the object, and motion per step stays below a pixel or two
MATRIX_PX = 32
_BAND_PX = 64  # rows at a time
_SSIM_WINDOW_PX = 11
_SSIM_SIGMA_PX = 1.5
# Linear sRGB to CIE XYZ (D65).
_XYZ_FROM_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)


def shrink(frames: torch.Tensor, long_side_px: int) -> torch.Tensor:
    """Average frames down to `[P, h, w, 3]` with a long side of at most `long_side_px`.

    Averaging removes grain, and makes the difference of two frames proportional to the motion between
    them; at full size it saturates as soon as a hard edge moves by its own width.
    """
    height, width = frames.shape[1:3]
    scale = min(1.0, long_side_px / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = torch.stack([_averaged(frame, *size) for frame in frames])
    return small.permute(0, 2, 3, 1).contiguous()


def _averaged(frame: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`[H, W, 3]` to `[3, height, width]`: first along rows, in bands, then along columns."""
    bands = (as_float(band).permute(2, 0, 1)[None] for band in frame.split(_BAND_PX))
    narrow = [F.interpolate(band, size=(band.shape[2], width), mode="area") for band in bands]
    return F.interpolate(torch.cat(narrow, 2), size=(height, width), mode="area")[0]


def as_float(values: torch.Tensor) -> torch.Tensor:
    """uint8 as float32 in 0..1; other values as float32."""
    return values.float() / LEVELS if values.dtype == torch.uint8 else values.float()


def step_sizes(frames: torch.Tensor) -> torch.Tensor:
    """`[P]`: the distance from every frame to the next; the last value is the seam."""
    count = len(frames)
    return torch.stack([distance(frames[i], frames[(i + 1) % count]) for i in range(count)])


def distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Of two frames `[H, W, 3]`: a scalar, float32."""
    bands = zip(first.split(_BAND_PX), second.split(_BAND_PX), strict=True)
    if first.dtype == second.dtype == torch.uint8:  # exact in whole numbers, in a third of the time
        counts = [(torch.maximum(a, b) - torch.minimum(a, b)).sum() for a, b in bands]
        return (torch.stack(counts).sum().double() / first.numel()).float()
    sums = [(as_float(a) - as_float(b)).abs().sum(dtype=torch.float64) for a, b in bands]
    return (torch.stack(sums).sum() / first.numel() * LEVELS).float()


def moving_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Distance without the part that grain adds.

    Part of the picture usually does not move, so the median pixel shows what grain adds to the mean
    (1.18 is mean over median of |normal|). At most four fifths count as grain, because in a pan over
    fine texture the median pixel moves too; ratios of distances then do not change.
    """
    difference = (first - second).abs()
    mean = difference.mean()
    return (mean - torch.minimum(1.18 * difference.median(), 0.8 * mean)) * LEVELS


def moving_steps(frames: torch.Tensor) -> torch.Tensor:
    """`[P]`: `step_sizes` with `moving_distance`; for small frames."""
    following = frames.roll(-1, 0)
    return torch.stack([moving_distance(a, b) for a, b in zip(frames, following, strict=True)])


def accelerations(frames: torch.Tensor) -> torch.Tensor:
    """`[P]`: mean |f[i+1] - 2 f[i] + f[i-1]| around the loop."""
    return (frames.roll(-1, 0) - 2 * frames + frames.roll(1, 0)).abs().mean((1, 2, 3)) * LEVELS


def distance_matrix(frames: torch.Tensor) -> torch.Tensor:
    """`[P, P]`: the distance between any two frames; for small frames."""
    flat = frames.flatten(1)
    return torch.cdist(flat, flat, p=1.0) * (LEVELS / flat.shape[1])


def seam_surroundings(steps: torch.Tensor) -> torch.Tensor:
    """The larger of the two steps before and the two steps after the seam: scalar."""
    count = len(steps)
    return steps[[(count - 3) % count, count - 2, 0, 1 % count]].max()


def attack(steps: torch.Tensor, start: int, direction: int) -> float:
    """How abruptly motion starts: the step at `start` over the larger of the two that follow it.

    Motion that starts from rest gives about 0.2 to 0.6 (steps 1 : 3 : 5, or 1 : 2 : 3), motion that is
    cut or turned around at full speed about 1. `direction` is 1, or -1 to look backwards.
    """
    count = len(steps)
    following = max(steps[(start + direction * k) % count] for k in (1, 2))
    return float(steps[start % count] / following.clamp(min=1e-6))


def slow_run(steps: torch.Tensor, limit: float) -> tuple[int, int]:
    """Longest runs of steps below `limit`: (the run that touches the seam, the longest elsewhere)."""
    slow = (steps < limit).tolist()
    count = len(slow)
    if all(slow):
        return count, 0
    first_fast = slow.index(False)
    runs, run = [], 0
    for offset in range(1, count + 1):  # starts after a fast step, so that no run is split
        step = (first_fast + offset) % count
        if slow[step]:
            run += 1
            continue
        runs.append((run, range(offset - run, offset)))
        run = 0
    seam_offset = (count - 1 - first_fast) % count
    touching = {seam_offset - 1, seam_offset, seam_offset + 1}
    at_seam = [length for length, offsets in runs if touching & set(offsets)]
    elsewhere = [length for length, offsets in runs if not touching & set(offsets)]
    return max(at_seam, default=0), max(elsewhere, default=0)


@dataclass(frozen=True)
class Mirror:
    """The best mirror image in time: frame `i` against frame `axis - i`.

    Attributes:
        error: mean distance of the mirrored frames.
        attack: the more abrupt of the two turning points, see `attack`.
    """

    axis: int
    error: float
    attack: float


def find_mirror(frames: torch.Tensor, steps: torch.Tensor) -> Mirror:
    """The turning points around which small frames run backwards; `steps` are their `moving_steps`."""
    matrix = distance_matrix(frames)
    count = len(matrix)
    index = torch.arange(count, device=matrix.device)
    errors = torch.stack([matrix[index, (axis - index) % count].mean() for axis in range(count)])
    axis = int(errors.argmin())
    pairs = zip(frames, frames[(axis - index) % count], strict=True)
    error = torch.stack([moving_distance(a, b) for a, b in pairs]).mean()
    # The axis has two fixed points, axis / 2 and (axis + P) / 2: on a frame, or between two equal
    # frames. Motion starts with the step after that frame, or after that pair.
    starts = [doubled // 2 + doubled % 2 for doubled in (axis, axis + count)]
    sharpest = max(attack(steps, start % count, 1) for start in starts)
    return Mirror(axis, float(error), sharpest)


def find_period(matrix: torch.Tensor, tolerance: float) -> int:
    """The number of frames after which the clip repeats to within `tolerance`; P if it does not.

    Only whole repeats count: the period divides P and has at least 4 frames.
    """
    count = len(matrix)
    for period in range(4, count // 2 + 1):
        if count % period == 0 and float(matrix.diagonal(period).mean()) < tolerance:
            return period
    return count


def mean_colours(frames: torch.Tensor) -> torch.Tensor:
    """`[P, 3]`: mean CIE L*a*b* colour (D65) of every frame."""
    linear = torch.where(
        frames <= 0.04045, frames / 12.92, ((frames.clamp(min=0) + 0.055) / 1.055) ** 2.4
    )
    to_xyz = frames.new_tensor(_XYZ_FROM_RGB)
    white = frames.new_tensor([0.95047, 1.0, 1.08883])
    ratio = linear @ to_xyz.T / white
    curve = torch.where(
        ratio > 216 / 24389, ratio.clamp(min=1e-9) ** (1 / 3), ratio * 841 / 108 + 4 / 29
    )
    x, y, z = curve.unbind(-1)
    lab = torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
    return lab.mean((1, 2))


def match_colours(frames: torch.Tensor) -> torch.Tensor:
    """Give every frame the clip's average mean and spread per channel, to compare frames without colour."""
    mean = frames.mean((1, 2), keepdim=True)
    spread = frames.std((1, 2), keepdim=True).clamp(min=1e-3)
    gain = (spread.mean(0, keepdim=True) / spread).clamp(0.5, 2.0)
    return (frames - mean) * gain + mean.mean(0, keepdim=True)


def slope(values: torch.Tensor) -> torch.Tensor:
    """Least-squares change of `[P, C]` per frame: `[C]`."""
    time = torch.arange(len(values), dtype=values.dtype, device=values.device)
    time = time - time.mean()
    return (time[:, None] * (values - values.mean(0))).sum(0) / (time**2).sum()


_Moments = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class NeighbourSsim:
    """Mean SSIM of neighbouring frames without the seam: the paper's "Motion" (1 = nothing moves).

    Grey, 11 x 11 Gaussian window of 1.5 px, K = (0.01, 0.03), only whole windows (Wang et al. 2004).
    """

    def __init__(self) -> None:
        self._before: _Moments | None = None
        self._after: _Moments | None = None
        self._kernel: list[float] = []
        self._sum, self._pairs = 0.0, 0

    def add(self, frame: torch.Tensor) -> None:
        """Take the next frame `[H, W, 3]`."""
        after = self._after or self._room(frame)
        self._measure(frame, after)
        if self._before is not None:
            # The bands of the greys reach further down, by the height of the window.
            reach = len(self._kernel) - 1
            rows = range(0, len(after[1]), _BAND_PX)
            parts = [self._band(self._before, after, top, top + _BAND_PX, reach) for top in rows]
            self._sum += float(torch.stack(parts).sum()) / after[1].numel()
            self._pairs += 1
        self._before, self._after = after, self._before

    def _band(
        self, before: _Moments, after: _Moments, top: int, bottom: int, reach: int
    ) -> torch.Tensor:
        """The sum of SSIM over some rows of windows."""
        greys = (moments[0][top : bottom + reach] for moments in (before, after))
        first, second = ([m[top:bottom] for m in moments[1:]] for moments in (before, after))
        product = first[0] * second[0]
        covariance = _blur(torch.mul(*greys), self._kernel) - product
        luminance = (2 * product + 1e-4) / (first[0] ** 2 + second[0] ** 2 + 1e-4)
        structure = (2 * covariance + 9e-4) / (first[1] + second[1] + 9e-4)
        return (luminance * structure).sum(dtype=torch.float64)

    def mean(self) -> float:
        """Over all pairs; a single frame is like itself."""
        return self._sum / self._pairs if self._pairs else 1.0

    def _room(self, frame: torch.Tensor) -> _Moments:
        """Room for a frame's grey `[H, W]`, its local mean and its local variance."""
        height, width = frame.shape[:2]
        window = min(_SSIM_WINDOW_PX, height, width)
        offsets = torch.arange(window, dtype=torch.float32) - (window - 1) / 2
        kernel = torch.exp(-(offsets**2) / (2 * _SSIM_SIGMA_PX**2))
        self._kernel = (kernel / kernel.sum()).tolist()
        grey = torch.empty(height, width, device=frame.device)
        mean = torch.empty(height - window + 1, width - window + 1, device=frame.device)
        return grey, mean, torch.empty_like(mean)

    def _measure(self, frame: torch.Tensor, moments: _Moments) -> None:
        grey, mean, variance = moments
        weights = torch.tensor([0.299, 0.587, 0.114], device=frame.device)
        for top in range(0, len(grey), _BAND_PX):
            rows = slice(top, top + _BAND_PX)
            grey[rows] = as_float(frame[rows]) @ weights
        for top in range(0, len(mean), _BAND_PX):
            rows = slice(top, top + _BAND_PX)
            band = grey[top : top + _BAND_PX + len(self._kernel) - 1]
            mean[rows] = _blur(band, self._kernel)
            variance[rows] = _blur(band * band, self._kernel) - mean[rows] ** 2


def ssim_adjacent(frames: torch.Tensor) -> float:
    """`NeighbourSsim` of the frames `[P, H, W, 3]`."""
    meter = NeighbourSsim()
    for frame in frames:
        meter.add(frame)
    return meter.mean()


def _blur(grey: torch.Tensor, kernel: list[float]) -> torch.Tensor:
    """Separable blur of `[H, W]` without borders; sums of shifted copies are 3x faster than conv2d."""
    height, width = grey.shape
    rows = height - len(kernel) + 1
    columns = width - len(kernel) + 1
    down = grey[:rows] * kernel[0]
    for shift, weight in enumerate(kernel[1:], 1):
        down.add_(grey[shift : shift + rows], alpha=weight)
    across = down[:, :columns] * kernel[0]
    for shift, weight in enumerate(kernel[1:], 1):
        across.add_(down[:, shift : shift + columns], alpha=weight)
    return across


def mse_255(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean squared error of two pictures on the 0..255 scale."""
    return float(((first.float() - second.float()) ** 2).mean()) * LEVELS**2
