"""Several loops side by side that play together, each with a line of text below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .sheet import SheetLayout, plan_sheet

MIN_CELL_PX, MAX_CELL_PX = 160, 256
LINE_PX = 22
GAP_PX = 6
INK, PAPER, MARK = (230, 230, 230), (30, 30, 32), (255, 190, 60)


def small_clip(frames: Tensor) -> Tensor:
    """Frames `[P, H, W, 3]` in 0..1 as a cell of a sheet: uint8, with a longer side of 160 to 256 pixels."""
    longest = max(frames.shape[1:3])
    scale = min(max(longest, MIN_CELL_PX), MAX_CELL_PX) / longest
    size = [max(1, round(side * scale)) for side in frames.shape[1:3]]
    pixels = frames[..., :3].float().cpu().movedim(-1, 1)
    resized = F.interpolate(pixels, size=size, mode="bilinear", antialias=scale < 1)
    return (resized.clamp(0, 1) * 255).round().byte().movedim(1, -1)


def labelled_sheet(
    clips: Sequence[Tensor], labels: Sequence[str], marked: int | None = None
) -> Tensor:
    """Clips of one size as frames of one picture, nearly square.

    Args:
        clips: N times `[P, h, w, 3]` uint8.
        labels: N lines of text, cut off where the cell ends.
        marked: the index of the clip with a bright border and label.

    Returns:
        `[P, H, W, 3]` in 0..1.
    """
    frames, height, width = clips[0].shape[:3]
    columns = plan_sheet(len(clips), height + LINE_PX, width).columns
    layout = SheetLayout(len(clips), columns, width, height + LINE_PX, GAP_PX)
    size = [layout.rows * (layout.height_px + GAP_PX) + GAP_PX, columns * (width + GAP_PX) + GAP_PX]
    sheet = torch.tensor(PAPER, dtype=torch.uint8).repeat(frames, *size, 1)
    for index, (clip, label) in enumerate(zip(clips, labels, strict=True)):
        top, left = layout.corner(index)
        if index == marked:
            border = GAP_PX // 2
            rows = slice(top - border, top + layout.height_px + border)
            columns_of = slice(left - border, left + width + border)
            sheet[:, rows, columns_of] = torch.tensor(MARK, dtype=torch.uint8)
        sheet[:, top : top + height, left : left + width] = clip
        line = _line(label, width, MARK if index == marked else INK)
        sheet[:, top + height : top + layout.height_px, left : left + width] = line
    return sheet.float() / 255


def _line(text: str, width_px: int, colour: tuple[int, int, int]) -> Tensor:
    """A line of text, `[LINE_PX, width_px, 3]` uint8."""
    picture = Image.new("RGB", (width_px, LINE_PX), PAPER)
    ImageDraw.Draw(picture).text((3, 3), text, fill=colour, font=ImageFont.load_default(14))
    return torch.from_numpy(np.asarray(picture).copy())
