"""The frames tell the motion, the still gives the pixels: a crisp loop at the still's own size."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import LoopAnimateError
from ..picture.images import WHITE, Picture, fit_pixels, require_frames
from ..picture.saliency import salient_mask
from .canvas import Canvas, fit_mask, fit_still, place
from .estimate import WORK_PX, Autoencoder, estimate_motion, read_scene, reveal_behind
from .maps import layer_points
from .matte import BUSY, Layers, split_layers
from .motion import Motion, resample_ring
from .render import Elastic, Rigid
from .residual import add_residual, residual_frames
from .settings import DetailSettings, frame_count

MIN_SIDE_PX = 8
MAX_VALUE = 2.0  # resampling may exceed 1 a little; more is a picture in 0..255
SALIENT_PX = 640  # the object is looked for at this size
FINER = 2  # the estimate moves the still at so many times the frames' resolution


@dataclass(frozen=True)
class DetailLoop:
    """A loop in the still's own pixels; iterating draws one frame after another, [H, W, 3 or 4] in 0..1.

    Attributes:
        fps: frames per second.
        mode: `rigid`, `elastic` or `off`: how it is drawn.
        motion: of the loop, in as many frames as play; None when `off`.
        matte: [H, W] in 0..1, the object's cover in frame 0.
    """

    fps: float
    mode: str
    canvas: Canvas
    motion: Motion | None
    matte: Tensor
    _first: Tensor
    _drawer: Rigid | Elastic | _Enlarged
    _residual: Tensor | None
    _count: int

    @property
    def height_px(self) -> int:
        return self.canvas.height_px

    @property
    def width_px(self) -> int:
        return self.canvas.width_px

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Tensor:
        """Frame `index`; frame 0 is the still itself."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of a loop of {len(self)}")
        index %= len(self)
        if index == 0 and self.mode != "off":
            return self._first.clone()
        frame = self._drawer.draw(index)
        if self._residual is not None:
            frame = add_residual(frame, self._residual[index], self.canvas)
        return torch.from_numpy(frame)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


def transfer(
    frames: Tensor,
    still: Picture | Tensor,
    mask: Tensor | None = None,
    settings: DetailSettings | None = None,
    *,
    frames_fps: float = 8.0,
    plate: Tensor | None = None,
    autoencoder: Autoencoder | None = None,
    device: str | torch.device = "cpu",
) -> DetailLoop:
    """Move the still as the frames of a loop move.

    Args:
        frames: `[P, h, w, 3]` in 0..1, the frames that play; frame 0 shows the still, evenly cropped to their shape.
        still: a Picture, or `[H, W, 3]` or `[H, W, 4]` (straight alpha) in 0..1.
        mask: 1 on what moves; of the still, at any resolution, or of the frames' size. None takes the picture's
            alpha, or looks for the salient object.
        frames_fps: frames per second of `frames`.
        plate: `[H, W, 3]` of the still's size, the same scene without the object.
        autoencoder: the round trip through the model's VAE, `[n, h, w, 3]` to the same. Four calls; they make the
            motion several times as exact.
        device: where frames are drawn.

    Raises:
        LoopAnimateError: an argument of another shape, numbers that are not finite, a size out of range.
    """
    settings = settings or DetailSettings()
    # 1. Check everything
    picture = _as_picture(still)
    frames = _checked_frames(frames)
    still_size, frames_size = _size(picture.rgb), _size(frames[0])
    count = frame_count(len(frames), frames_fps, settings.fps)
    fps = settings.fps or frames_fps
    canvas = place(still_size, frames_size, settings.output_size(still_size, frames_size))
    if plate is not None and tuple(plate.shape) != (*still_size, 3):
        raise LoopAnimateError(
            f"the plate must be [{still_size[0]}, {still_size[1]}, 3] like the still, got {list(plate.shape)}"
        )
    if plate is not None:
        _check_values(plate.float(), "the plate")
    device = _device(device)
    if mask is None:
        mask = find_object(picture)
    on_canvas = fit_mask(mask, still_size, frames_size, canvas)
    if settings.mode == "off":
        enlarged = _Enlarged(frames, canvas, count)
        first = torch.from_numpy(enlarged.draw(0))
        matte = torch.from_numpy(on_canvas)
        return DetailLoop(fps, "off", canvas, None, matte, first, enlarged, None, count)
    if settings.transparent and not on_canvas.any():
        raise LoopAnimateError("transparent needs an object, but the mask is empty")

    # 2. How the frames move and, beside it, the still taken apart at its own size
    with ThreadPoolExecutor(1) as beside:
        split = beside.submit(_split, picture, plate, mask, on_canvas, canvas, frames_size)
        motion, residual = _moved(frames, picture, mask, settings.residual, count, autoencoder)
        layers = split.result()

    # 3. Drawing, when asked
    elastic = settings.mode == "elastic" or (
        settings.mode == "auto"
        and not settings.transparent
        and plate is None
        and layers.busyness > BUSY
    )
    if settings.transparent or not (elastic or layers.whole):
        drawer = Rigid(layers, canvas, motion, transparent=settings.transparent, device=device)
    else:
        cover = np.zeros_like(on_canvas) if layers.whole else layers.cover
        drawer = Elastic(layers.still, cover, canvas, motion, settings.band, device=device)
    first = torch.from_numpy(drawer.draw(0) if settings.transparent else layers.still)
    matte = torch.from_numpy(layers.cover.copy())  # without keeping the colours
    mode = "elastic" if isinstance(drawer, Elastic) else "rigid"
    return DetailLoop(fps, mode, canvas, motion, matte, first, drawer, residual, count)


class _Enlarged:
    """The frames themselves, enlarged; between them, a spline of their colours."""

    def __init__(self, frames: Tensor, canvas: Canvas, count: int) -> None:
        self.frames, self.canvas = resample_ring(frames, count).float(), canvas

    def draw(self, index: int) -> np.ndarray:
        size = (self.canvas.height_px, self.canvas.width_px)
        return np.ascontiguousarray(fit_pixels(self.frames[index], *size).numpy())


def _split(
    picture: Picture,
    plate: Tensor | None,
    mask: Tensor,
    on_canvas: np.ndarray,
    canvas: Canvas,
    frames_size: tuple[int, int],
) -> Layers:
    """The still taken apart at the size of the canvas."""
    alpha = None if picture.alpha is None else fit_still(picture.alpha[..., None], canvas)[..., 0]
    return split_layers(
        fit_still(picture.over(WHITE), canvas),
        on_canvas,
        alpha=alpha,
        plate=None if plate is None else fit_still(plate.float().cpu(), canvas),
        mask_px=_mask_px(mask, frames_size, canvas),
    )


def _moved(
    frames: Tensor,
    picture: Picture,
    mask: Tensor,
    strength: float,
    count: int,
    autoencoder: Autoencoder | None,
) -> tuple[Motion, Tensor | None]:
    """The motion of the frames in `count` frames, and what it leaves unexplained."""
    still_size, frames_size = _size(picture.rgb), _size(frames[0])
    cover = fit_mask(mask, still_size, frames_size, place(still_size, frames_size, frames_size))
    scale = min(1.0, WORK_PX / max(frames_size)) * FINER
    size = (round(frames_size[0] * scale), round(frames_size[1] * scale))
    canvas = place(still_size, frames_size, size)  # the part of the still that the frames show
    layers = split_layers(
        np.ascontiguousarray(fit_pixels(picture.over(WHITE), *size).numpy()),
        fit_mask(mask, still_size, frames_size, canvas),
        mask_px=_mask_px(mask, frames_size, canvas),
    )
    motion = estimate_motion(frames, layers, cover, autoencoder)
    residual = None
    if strength > 0.0:
        scene = read_scene(frames, cover)
        scene = reveal_behind(scene, layer_points(motion.object, scene.frames))
        residual = residual_frames(scene, motion, strength, count)
    return motion.at(count), residual


def _mask_px(mask: Tensor, frames_size: tuple[int, int], canvas: Canvas) -> float:
    """Side of one of the mask's pixels on the canvas."""
    if tuple(mask.shape) == frames_size:
        return 2.0 * canvas.half_width_x / mask.shape[1]
    return max(canvas.width_px / mask.shape[1], canvas.height_px / mask.shape[0])


def _size(picture: Tensor) -> tuple[int, int]:
    """(height, width) of [H, W, C]."""
    return picture.shape[0], picture.shape[1]


def find_object(picture: Picture) -> Tensor:
    """The picture's alpha, or the mask of its salient object at a moderate size."""
    if picture.alpha is not None:
        return picture.alpha
    scale = min(1.0, SALIENT_PX / max(picture.height_px, picture.width_px))
    size = (max(1, round(picture.height_px * scale)), max(1, round(picture.width_px * scale)))
    return salient_mask(fit_pixels(picture.rgb, *size))


def _as_picture(still: Picture | Tensor) -> Picture:
    if not isinstance(still, Picture):
        if still.ndim != 3 or still.shape[2] not in (3, 4) or 0 in still.shape:
            raise LoopAnimateError(
                f"a still must have the shape [H, W, 3] or [H, W, 4], not {list(still.shape)}"
            )
        still = still.detach().float().cpu()
        still = Picture(still[..., :3], still[..., 3] if still.shape[2] == 4 else None)
    if min(still.height_px, still.width_px) < MIN_SIDE_PX:
        raise LoopAnimateError(
            f"the still is {still.width_px} x {still.height_px} pixels; each side must be"
            f" {MIN_SIDE_PX} or more"
        )
    _check_values(still.rgb, "the still")
    if still.alpha is not None:
        _check_values(still.alpha, "the still's alpha")
    return still


def _check_values(picture: Tensor, name: str) -> None:
    if not bool(picture.isfinite().all()):
        raise LoopAnimateError(f"{name} holds values that are not finite numbers")
    if float(picture.max()) > MAX_VALUE:
        raise LoopAnimateError(
            f"{name} must have values between 0 and 1, got one of {float(picture.max()):g}"
        )


def _checked_frames(frames: Tensor) -> Tensor:
    require_frames(frames)
    if min(frames.shape[1:3]) < MIN_SIDE_PX:
        raise LoopAnimateError(
            f"the frames are {frames.shape[2]} x {frames.shape[1]} pixels; each side must be"
            f" {MIN_SIDE_PX} or more"
        )
    bad = [number for number, frame in enumerate(frames) if not bool(frame.isfinite().all())]
    if bad:
        raise LoopAnimateError(f"frame {bad[0]} holds values that are not finite numbers")
    _check_values(frames, "the frames")
    return frames.detach().float().cpu().clamp(0.0, 1.0)


def _device(name: str | torch.device) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise LoopAnimateError(f"Device {str(name)!r} is not known to PyTorch") from error
