"""Shapes for publishing loops: wallpapers, squares and stickers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch

from ..errors import LoopAnimateError
from ..picture.images import fit_pixels

MIN_SIDE_PX = 16


@dataclass(frozen=True)
class Preset:
    """A shape.

    Attributes:
        name: as shown to users.
        aspect: width over height; None keeps the picture's own.
        longest_px: the longer side after shrinking; None does not scale.
    """

    name: str
    aspect: Fraction | None = None
    longest_px: int | None = None


# Wallpapers are not scaled: enlarging would add bytes but no detail, and wallpaper programs fit the
# picture to the screen. 512 pixels is the size of stickers in messengers.
_ROWS = (
    Preset("as it is"),
    Preset("phone 9:16", Fraction(9, 16)),
    Preset("desktop 16:9", Fraction(16, 9)),
    Preset("ultrawide 21:9", Fraction(21, 9)),
    Preset("square", Fraction(1)),
    Preset("sticker", Fraction(1), longest_px=512),
)
PRESETS: dict[str, Preset] = {row.name: row for row in _ROWS}


def apply_preset(frames: torch.Tensor, name: str) -> torch.Tensor:
    """Crop frames `[F, H, W, C]` to the middle in the preset's shape, and shrink them if it says so.

    Both sides are even, as most video formats need. `as it is` returns the frames unchanged. A fourth
    channel (transparency) is kept.

    Raises:
        LoopAnimateError: an unknown preset, or a side would be shorter than 16 pixels.
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise LoopAnimateError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    if preset.aspect is None:
        return frames
    height, width = frames.shape[1:3]
    cut_height, cut_width = _largest_cut(height, width, preset.aspect)
    if min(cut_height, cut_width) < MIN_SIDE_PX:
        raise LoopAnimateError(
            f"frames of {width} x {height} pixels are too small for the preset {name!r}: each side of"
            f" the result must be at least {MIN_SIDE_PX} pixels"
        )
    top, left = (height - cut_height) // 2, (width - cut_width) // 2
    cut = frames[:, top : top + cut_height, left : left + cut_width]
    if preset.longest_px is None or max(cut_height, cut_width) <= preset.longest_px:
        return cut
    scale = preset.longest_px / max(cut_height, cut_width)
    size = _even(round(cut_height * scale)), _even(round(cut_width * scale))
    return torch.stack([_shrink(frame, *size) for frame in cut])


def _largest_cut(height_px: int, width_px: int, aspect: Fraction) -> tuple[int, int]:
    """Height and width of the largest part with this aspect ratio and even sides."""
    if width_px > height_px * aspect:
        return _even(height_px), _even(round(height_px * aspect))
    return _even(round(width_px / aspect)), _even(width_px)


def _even(side_px: int) -> int:
    return side_px - side_px % 2


def _shrink(frame: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
    """Resize `[H, W, C]` so that colours under transparent pixels do not bleed into visible ones."""
    frame = frame.float()
    if frame.shape[-1] == 3:
        return fit_pixels(frame, height_px, width_px, "stretch")
    alpha = fit_pixels(frame[..., 3:], height_px, width_px, "stretch")
    premultiplied = fit_pixels(frame[..., :3] * frame[..., 3:], height_px, width_px, "stretch")
    return torch.cat([(premultiplied / alpha.clamp(min=1 / 255)).clamp(0, 1), alpha], -1)
