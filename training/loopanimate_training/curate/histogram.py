"""Histograms as inline SVG: all values, those of kept clips in front, and the limit."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..run.curves import number

WIDTH, HEIGHT, BOTTOM, BINS = 420, 150, 22, 32


def histogram(title: str, caption: str, values: Sequence[tuple[float, bool]], limit: float) -> str:
    """A figure of values, each with whether its clip is kept. The axis covers the limit and 98 % of the values."""
    ordered = sorted(value for value, _ in values)
    low = min(ordered[int(0.01 * (len(ordered) - 1))], limit)
    high = max(ordered[-1 - int(0.01 * (len(ordered) - 1))], limit)
    width = (high - low) or 1.0
    counts = {False: [0] * BINS, True: [0] * BINS}
    for value, kept in values:
        place = min(BINS - 1, max(0, int((value - low) / width * BINS)))
        counts[False][place] += 1
        counts[True][place] += kept
    bars = "".join(
        _bar(place, count, max(counts[False]), kept)
        for kept in (False, True)
        for place, count in enumerate(counts[kept])
        if count
    )
    at = (limit - low) / width * WIDTH
    line = f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{HEIGHT - BOTTOM}"/>'
    ends = (
        f'<text x="0" y="{HEIGHT - 6}">{number(low)}</text>'
        f'<text class="end" x="{WIDTH}" y="{HEIGHT - 6}">{number(high)}</text>'
    )
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    head = f"<figcaption>{escape(title)}<br><small>{escape(caption)}</small></figcaption>"
    return f"<figure>{head}{svg}{bars}{line}{ends}</svg></figure>"


def _bar(place: int, count: int, most: int, kept: bool) -> str:
    wide, room = WIDTH / BINS, HEIGHT - BOTTOM
    tall = max(2.0, count / most * room)
    style = ' class="kept"' if kept else ""
    return (
        f'<rect{style} x="{place * wide:.1f}" y="{room - tall:.1f}" '
        f'width="{wide - 1:.1f}" height="{tall:.1f}"/>'
    )
