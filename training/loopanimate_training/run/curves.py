"""Curves of a run as inline SVG, without a library or scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

HEIGHT = 230
NARROW, WIDE = 420, 1000  # SVG units; text has the same size in both
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 30
MAX_POINTS = 400

Points = Sequence[tuple[float, float]]


def curve(
    title: str, points: Points, smooth: Points = (), *, unit: str = "", width: int = NARROW
) -> str:
    """A line chart over steps; with `smooth`, that is the main line and `points` are drawn faintly behind it.

    The y axis covers the middle 98 % of the values, so a single spike is cut off. It is logarithmic when the
    values differ by more than a factor of 50.
    """
    points = [(x, y) for x, y in points if math.isfinite(y)]
    if len(points) < 2:
        return ""
    values = sorted(y for _, y in (smooth or points))
    raw = sorted(y for _, y in points)
    low = min(values[0], raw[int(0.01 * (len(raw) - 1))])
    high = max(values[-1] if smooth else 0.0, raw[math.ceil(0.99 * (len(raw) - 1))])
    scale = _Scale(points[0][0], points[-1][0], low, high, width)
    lines = [_path(scale, points, "faint" if smooth else "line")]
    if smooth:
        lines.append(_path(scale, smooth, "line"))
    last = (smooth or points)[-1][1]
    caption = f"{escape(title)} <b>{number(last)}{escape(unit)}</b>"
    svg = f'<svg viewBox="0 0 {width} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    content = _grid(scale) + "".join(lines)
    return f"<figure><figcaption>{caption}</figcaption>{svg}{content}</svg></figure>"


def thin(points: Points, most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `most` points: means of neighbours, with the first and last point unchanged."""
    if len(points) <= most:
        return list(points)
    size = len(points) / most
    means = []
    for i in range(most):
        group = points[round(i * size) : max(round((i + 1) * size), round(i * size) + 1)]
        means.append((sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)))
    return [points[0], *means[1:-1], points[-1]]


def number(value: float) -> str:
    """Three significant digits, thousands with commas."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


class _Scale:
    """Converts values to SVG coordinates."""

    def __init__(self, x0: float, x1: float, low: float, high: float, width: int) -> None:
        self.width = width
        self.x0, self.x1 = x0, x1 if x1 > x0 else x0 + 1
        self.log = low > 0 and high / low > 50
        if not self.log:
            room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
            low, high = low - room, high + room
        self.low, self.high = low, high

    def x(self, value: float) -> float:
        share = (value - self.x0) / (self.x1 - self.x0)
        return LEFT + share * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        a, b, v = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            a, b, v = math.log(a), math.log(b), math.log(v)
        return HEIGHT - BOTTOM - (v - a) / (b - a) * (HEIGHT - TOP - BOTTOM)

    def y_ticks(self) -> list[float]:
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [10.0**power for power in powers] or [self.low, self.high]
        return _round_ticks(self.low, self.high, 4)

    def x_ticks(self) -> list[float]:
        return _round_ticks(self.x0, self.x1, self.width // 110)


def _round_ticks(low: float, high: float, about: int) -> list[float]:
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def _path(scale: _Scale, points: Points, style: str) -> str:
    d = " ".join(f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in thin(points))
    return f'<polyline class="{style}" points="{d}"/>'


def _grid(scale: _Scale) -> str:
    parts = []
    for value in scale.y_ticks():
        y = scale.y(value)
        parts.append(f'<line x1="{LEFT}" x2="{scale.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" class="end">{number(value)}</text>')
    for value in scale.x_ticks():
        parts.append(
            f'<text x="{scale.x(value):.1f}" y="{HEIGHT - 8}" class="mid">{number(value)}</text>'
        )
    return "".join(parts)
