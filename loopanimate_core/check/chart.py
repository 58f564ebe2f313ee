"""The seam chart: every step of the loop as a bar, with the seam in the middle."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .report import LoopReport

WIDTH_PX = 640
HEIGHT_PX = 320
SCALE = 2  # drawn twice as large and averaged down
MAX_BARS = 120

_PAPER = (250, 250, 252)
_INK = (38, 42, 54)
_FAINT = (140, 146, 160)
_GRID = (226, 229, 236)
_BAR = (122, 146, 196)
_GOOD = (34, 150, 94)
_BAD = (205, 62, 62)

_PLOT = (24, 84, WIDTH_PX - 24, HEIGHT_PX - 54)  # left, top, right, bottom


def seam_chart(report: LoopReport) -> torch.Tensor:
    """Draw a report as a picture `[320, 640, 3]` in 0..1.

    Bars are the mean differences of neighbouring frames in playing order, rotated so that the seam
    (last frame to first) is in the middle, in green or red. The dashed line is the median.
    """
    image = Image.new("RGB", (WIDTH_PX * SCALE, HEIGHT_PX * SCALE), _PAPER)
    draw = ImageDraw.Draw(image)
    accent = _GOOD if report.passed else _BAD
    _headline(draw, report, accent)
    _bars(draw, report, accent)
    _footer(draw, report)
    image = image.resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BOX)
    return torch.from_numpy(np.array(image)).float() / 255


def _headline(draw: ImageDraw.ImageDraw, report: LoopReport, accent: tuple[int, ...]) -> None:
    _text(draw, (24, 16), report.verdict[:1].upper() + report.verdict[1:], 22, accent)
    length = f"{report.frames} frames"
    if report.repeats > 1:
        length += f" = {report.repeats} x {report.period_frames}"
    if report.duration_s:
        length += f", {report.duration_s:.2f} s at {report.fps:g} fps"
    _text(draw, (24, 50), f"{length}. Difference of neighbouring frames (0-255):", 13, _FAINT)


def _bars(draw: ImageDraw.ImageDraw, report: LoopReport, accent: tuple[int, ...]) -> None:
    steps, seam = _around_seam(report.steps)
    left, top, right, bottom = _PLOT
    highest = max(*steps, 1e-6) * 1.08
    width = (right - left) / len(steps)
    for share in (0.25, 0.5, 0.75, 1.0):
        y = bottom - share * (bottom - top)
        _box(draw, (left, y, right, y + 0.5), _GRID)
    for index, step in enumerate(steps):
        x = left + index * width
        gap = min(2.0, width * 0.18)
        y = min(bottom - step / highest * (bottom - top), bottom - 1)
        _box(draw, (x + gap, y, x + width - gap, bottom), accent if index == seam else _BAR)
    y = bottom - report.motion / highest * (bottom - top)
    for x in range(left, right, 10):
        _box(draw, (x, y - 0.75, x + 6, y + 0.75), _INK)
    middle = left + (seam + 0.5) * width
    _box(
        draw, (middle - 0.75, bottom, middle + 0.75, bottom + 6), accent
    )  # finds a seam of no height
    _text(draw, (middle, bottom + 7), "seam", 13, accent, anchor="ma")
    _text(draw, (left, bottom + 4), "earlier", 12, _FAINT)
    _text(draw, (right, bottom + 4), "later", 12, _FAINT, anchor="ra")


def _around_seam(steps: tuple[float, ...]) -> tuple[list[float], int]:
    """The steps in playing order with the seam in the middle, and its index; long clips are shortened."""
    before = min((len(steps) - 1) // 2, MAX_BARS // 2)
    after = min(len(steps) - 1 - before, MAX_BARS // 2)
    return [*steps[len(steps) - 1 - before :], *steps[:after]], before


def _footer(draw: ImageDraw.ImageDraw, report: LoopReport) -> None:
    figures = [
        ("seam / median", report.seam_ratio, 2),
        ("seam / around", report.seam_jump, 2),
        ("motion", report.motion, 2),
        ("colour step", report.colour_step, 2),
        ("neighbour SSIM", report.ssim_adjacent, 3),
    ]
    shown = [
        f"{name}  {'-' if value is None else format(value, f'.{digits}f')}"
        for name, value, digits in figures
    ]
    widths = [draw.textlength(text, _font(12)) / SCALE for text in shown]
    gap = (WIDTH_PX - 48 - sum(widths)) / (len(shown) - 1)
    x = 24.0
    for text, width in zip(shown, widths, strict=True):
        _text(draw, (x, HEIGHT_PX - 28), text, 12, _INK)
        x += width + gap


def _box(
    draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], fill: tuple[int, ...]
) -> None:
    x0, y0, x1, y1 = (round(side * SCALE) for side in box)
    if x1 > x0 and y1 > y0:
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=fill)


def _text(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    size_px: int,
    fill: tuple[int, ...],
    anchor: str = "la",
) -> None:
    font = _font(size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        anchor = "la"  # without FreeType Pillow has one small bitmap font, with this anchor only
    draw.text((position[0] * SCALE, position[1] * SCALE), text, fill, font, anchor=anchor)


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px * SCALE)
