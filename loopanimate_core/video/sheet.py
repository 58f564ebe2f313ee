"""All frames of a loop in one picture, from which a page can play it without decoding a video."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import LoopAnimateError
from ..picture.images import require_frames

CELL_PX = 320
SHEET_PX = 4096  # what every browser and graphics chip takes as one picture


@dataclass(frozen=True)
class SheetLayout:
    """Where the frames lie: row by row from the top left, without gaps.

    Attributes:
        frames, columns: how many there are, and how many stand in a row.
        width_px, height_px: of one frame on the sheet.
    """

    frames: int
    columns: int
    width_px: int
    height_px: int

    @property
    def rows(self) -> int:
        return math.ceil(self.frames / self.columns)

    def corner(self, index: int) -> tuple[int, int]:
        """Top and left of a frame, in pixels."""
        return index // self.columns * self.height_px, index % self.columns * self.width_px


def plan_sheet(
    frames: int, height_px: int, width_px: int, *, cell_px: int = CELL_PX, sheet_px: int = SHEET_PX
) -> SheetLayout:
    """The nearly square sheet of `frames` frames of the given size.

    No frame is enlarged; each is at most `cell_px` on its longer side, and the sheet at most
    `sheet_px` on either.

    Raises:
        LoopAnimateError: a number below 1, or more frames than the sheet has pixels for.
    """
    if min(frames, height_px, width_px, cell_px, sheet_px) < 1:
        raise LoopAnimateError(
            f"a sheet needs 1 frame of 1 x 1 pixels or more, not {frames} of"
            f" {width_px} x {height_px} in cells of {cell_px} on {sheet_px}"
        )
    columns = min(frames, math.ceil(math.sqrt(frames * height_px / width_px)))
    rows = math.ceil(frames / columns)
    widest, highest = sheet_px // columns, sheet_px // rows
    if not (widest and highest):
        raise LoopAnimateError(f"{frames} frames do not fit on a sheet of {sheet_px} pixels")
    scale = min(1.0, cell_px / max(height_px, width_px), widest / width_px, highest / height_px)
    width = min(widest, max(1, round(width_px * scale)))
    height = min(highest, max(1, round(height_px * scale)))
    return SheetLayout(frames, columns, width, height)


def draw_sheet(frames: torch.Tensor, layout: SheetLayout) -> torch.Tensor:
    """Frames `[F, H, W, 3]` in 0..1 laid out on black: `[rows * height, columns * width, 3]`."""
    require_frames(frames)
    height, width = layout.height_px, layout.width_px
    sheet = torch.zeros(layout.rows * height, layout.columns * width, 3)
    for index, frame in enumerate(frames):
        top, left = layout.corner(index)
        sheet[top : top + height, left : left + width] = _shrunk(frame, height, width)
    return sheet


def shrink_frames(frames: torch.Tensor, longest_px: int) -> torch.Tensor:
    """Frames `[F, H, W, C]` at `longest_px` or less on their longer side; never enlarged."""
    height, width = frames.shape[1:3]
    scale = min(1.0, longest_px / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return torch.stack([_shrunk(frame, *size) for frame in frames])


def _shrunk(frame: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
    pixels = frame.detach().float().cpu()
    if tuple(pixels.shape[:2]) == (height_px, width_px):
        return pixels
    resized = F.interpolate(
        pixels.permute(2, 0, 1)[None], size=(height_px, width_px), mode="bilinear", antialias=True
    )
    return resized[0].permute(1, 2, 0)
