"""The page of an evaluation: the table, and the loops of each picture side by side, all by one clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..files import atomic_write
from ..picture.images import load_picture
from ..picture.sheet import shrink_frames
from .cases import Case
from .encoder import Encoder
from .figures import FIGURES
from .runner import Row
from .sheets import data_uri, html_page, layout_of, sheet_facts, to_webp, write_sheet
from .store import FOLDER, Store
from .table import cell, summarise, titles

PAGE = "index.html"
CELL_PX, STILL_PX = 320, 320


def write_page(cases: Sequence[Case], rows: Sequence[Row], encoder: Encoder, out: Path) -> Path:
    """Write `index.html` into the evaluation's folder; it plays sheets from `made/` and links to `loops/`."""
    store, loops = Store(out), []
    sections = [_table(summarise(rows), encoder), _failures(rows), _controls()]
    for case in cases:
        mine = [row for row in rows if row.picture == case.name]
        sections.append(_picture(case, mine, store, loops))
    made = sum(row.made for row in rows)
    head = (
        '<p class="kicker">LoopAnimate evaluation</p>'
        f"<h1>{made} loops of {len({row.label for row in rows})} systems</h1>"
    )
    html = html_page(
        "LoopAnimate evaluation",
        head + "".join(sections),
        {"loops": loops},
        ("player.js", "page.js"),
    )
    with atomic_write(out / PAGE) as partial:
        partial.write_text(html, encoding="utf-8")
    return out / PAGE


def _table(summaries: Sequence[Mapping[str, Any]], encoder: Encoder) -> str:
    """A line per figure and a column per system."""
    headings = titles(encoder)
    lines = [
        ["", *(f"<b>{escape(summary['label'])}</b>" for summary in summaries)],
        ["Seamless ↑<small>the verdict of the loop check</small>", *map(_seamless, summaries)],
        [
            "Seamless file ↑<small>the same for the mp4, decoded</small>",
            *(f"{summary['seamless_files']} of {summary['pictures']}" for summary in summaries),
        ],
    ]
    for figure in FIGURES:
        arrow = f" {figure.better}" if figure.better in ("↑", "↓") else ""
        title = f"{escape(headings[figure.key])}{arrow}<small>{escape(figure.meaning)}</small>"
        lines.append([title, *(_with_interval(cell(summary, figure)) for summary in summaries)])
    rows = "".join(
        "<tr>" + "".join(f"<td>{text}</td>" for text in line) + "</tr>" for line in lines
    )
    return (
        f'<div class="scroll"><table>{rows}</table></div>'
        f'<p class="note">Means over pictures; below them the 95 % interval of the bootstrap. Image encoder: '
        f"{escape(encoder.name)}. A clip that stands still is perfect in CLIP-I, MSE_F0, FC, Motion and Loop-C: "
        "read them beside Flow, Step and the verdicts. Seam: 1 is ideal, 0 a held frame.</p>"
    )


def _seamless(summary: Mapping[str, Any]) -> str:
    faults = [
        f"{count} {verdict}"
        for verdict, count in summary["verdicts"].items()
        if verdict != "seamless"
    ]
    return (
        f"{summary['seamless']} of {summary['pictures']}<small>{escape('; '.join(faults))}</small>"
    )


def _with_interval(text: str) -> str:
    mean, bracket, limits = text.partition(" [")
    return f"{mean}<small>{limits.rstrip(']').replace(', ', '…')}</small>" if bracket else text


def _failures(rows: Sequence[Row]) -> str:
    failed = [row for row in rows if not row.made]
    lines = "".join(
        f"<tr><td>{escape(row.label)}</td><td>{escape(row.picture)}</td><td>{escape(row.reason)}</td></tr>"
        for row in failed
    )
    return (
        f'<h2>Loops that failed</h2><div class="scroll"><table>{lines}</table></div>'
        if failed
        else ""
    )


def _controls() -> str:
    return (
        '<h2>Loops</h2><div class="bar"><button id="play">Pause</button><button id="start">Start</button>'
        '<button id="back" aria-label="One frame back">‹</button>'
        '<button id="next" aria-label="One frame on">›</button>'
        '<label>Speed <input id="speed" type="range" min="0.1" max="2" step="0.1" value="1"> '
        "<span>1 ×</span></label></div>"
    )


def _picture(case: Case, rows: Sequence[Row], store: Store, loops: list[dict[str, Any]]) -> str:
    pixels = load_picture(case.picture).over()
    still = data_uri(to_webp(shrink_frames(pixels[None], STILL_PX)[0]))
    figures = [
        f'<figure><img alt="The picture" src="{still}"><figcaption>the picture</figcaption></figure>'
    ]
    for row in rows:
        clip = store.clip(row.clip) if row.made else None
        if clip is None:
            reason = escape(row.reason or "its frames are missing")
            figures.append(
                f'<figure><figcaption>{escape(row.label)} <small class="bad">{reason}</small></figcaption></figure>'
            )
            continue
        layout, sheet = layout_of(clip, CELL_PX), f"{row.clip}.webp"
        if not (store.folder / sheet).is_file():
            write_sheet(clip, layout, store.folder / sheet)
        loops.append(sheet_facts(clip, layout, f"{FOLDER}/{sheet}"))
        verdict, passed = row.figures["verdict"], row.figures["passed"]
        figures.append(
            f'<figure><canvas data-loop="{len(loops) - 1}"></canvas><figcaption>'
            f'<a href="{quote(row.file)}">{escape(row.label)}</a>'
            f'<small class="{"good" if passed else "bad"}">{escape(verdict)}</small></figcaption></figure>'
        )
    return (
        f"<h3>{escape(case.name)} <span>{escape(case.prompt)}</span></h3>"
        f'<div class="row">{"".join(figures)}</div>'
    )
