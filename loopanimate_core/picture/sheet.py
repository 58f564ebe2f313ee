"""Many frames in one picture: contact sheets for people, and sheets from which a page plays a loop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import LoopAnimateError
from .images import require_frames

CELL_PX = 320
SHEET_PX = 4096  # every browser and graphics chip can show a picture of this size


@dataclass(frozen=True)
class SheetLayout:
    """A grid of frames, filled row by row from the top left.

    Attributes:
        frames, columns: the number of frames, and of frames in a row.
        width_px, height_px: the size of one frame on the sheet.
        gap_px: the distance between frames and around them.
    """

    frames: int
    columns: int
    width_px: int
    height_px: int
    gap_px: int = 0

    @property
    def rows(self) -> int:
        return math.ceil(self.frames / self.columns)

    def corner(self, index: int) -> tuple[int, int]:
        """Top and left of a frame, in pixels."""
        row, column = divmod(index, self.columns)
        top = self.gap_px + row * (self.height_px + self.gap_px)
        return top, self.gap_px + column * (self.width_px + self.gap_px)


def plan_sheet(
    frames: int, height_px: int, width_px: int, *, cell_px: int = CELL_PX, sheet_px: int = SHEET_PX
) -> SheetLayout:
    """The layout of a nearly square sheet of `frames` frames of the given size, without gaps.

    Frames are never enlarged. The longer side of a frame is at most `cell_px`, that of the sheet at
    most `sheet_px`.

    Raises:
        LoopAnimateError: a number below 1, or more frames than fit on the sheet.
    """
    if min(frames, height_px, width_px, cell_px, sheet_px) < 1:
        raise LoopAnimateError(
            "a sheet needs at least 1 frame of 1 x 1 pixels, got"
            f" {frames} of {width_px} x {height_px} in cells of {cell_px} on {sheet_px} pixels"
        )
    columns = _nearly_square(frames, height_px, width_px)
    rows = math.ceil(frames / columns)
    widest, highest = sheet_px // columns, sheet_px // rows
    if not (widest and highest):
        raise LoopAnimateError(f"{frames} frames do not fit on a sheet of {sheet_px} pixels")
    scale = min(1.0, cell_px / max(height_px, width_px), widest / width_px, highest / height_px)
    width = min(widest, max(1, round(width_px * scale)))
    height = min(highest, max(1, round(height_px * scale)))
    return SheetLayout(frames, columns, width, height)


def draw_sheet(frames: torch.Tensor, layout: SheetLayout, background: float = 0.0) -> torch.Tensor:
    """Draw frames `[F, H, W, 3]` in 0..1 as one picture `[height, width, 3]`.

    Args:
        background: the grey, 0 (black) to 1 (white), of gaps and empty cells.
    """
    require_frames(frames)
    height, width, gap = layout.height_px, layout.width_px, layout.gap_px
    size = layout.rows * (height + gap) + gap, layout.columns * (width + gap) + gap
    sheet = torch.full((*size, 3), background)
    for index, frame in enumerate(frames):
        top, left = layout.corner(index)
        sheet[top : top + height, left : left + width] = _shrunk(frame, height, width)
    return sheet


def contact_sheet(
    frames: torch.Tensor, columns: int | None = None, gap_px: int = 4
) -> torch.Tensor:
    """Frames `[F, H, W, 3]` at their own size, row by row on white.

    Args:
        columns: frames in a row; None makes the sheet nearly square.
        gap_px: the distance between frames and around them.
    """
    count, height, width, _ = require_frames(frames).shape
    columns = _nearly_square(count, height, width) if columns is None else columns
    if columns < 1 or gap_px < 0:
        raise LoopAnimateError(
            f"columns must be 1 or more and gap_px 0 or more, got {columns} and {gap_px}"
        )
    layout = SheetLayout(count, min(columns, count), width, height, gap_px)
    return draw_sheet(frames, layout, background=1.0)


def shrink_frames(frames: torch.Tensor, longest_px: int) -> torch.Tensor:
    """Frames `[F, H, W, C]` with a longer side of at most `longest_px`; they are never enlarged."""
    height, width = frames.shape[1:3]
    scale = min(1.0, longest_px / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return torch.stack([_shrunk(frame, *size) for frame in frames])


def _nearly_square(frames: int, height_px: int, width_px: int) -> int:
    """The number of columns that makes the sheet about as wide as it is high."""
    return min(frames, math.ceil(math.sqrt(frames * height_px / width_px)))


def _shrunk(frame: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
    pixels = frame.detach().float().cpu()
    if tuple(pixels.shape[:2]) == (height_px, width_px):
        return pixels
    resized = F.interpolate(
        pixels.permute(2, 0, 1)[None], size=(height_px, width_px), mode="bilinear", antialias=True
    )
    return resized[0].permute(1, 2, 0)
