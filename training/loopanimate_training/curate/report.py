"""The result as one HTML page, without scripts: counts, distributions of the scores with their limits, and pictures.

It is for setting limits: who changes one runs `curate` again, which decides again without measuring.
"""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path

from loopanimate_core.files import atomic_write

from ..config import CurateConfig, LimitsConfig
from ..data.readers.layouts import KEPT
from ..run.curves import number
from ..run.report import STYLE
from .driver import Verdict
from .histogram import histogram
from .journal import Journal
from .measure import Scores
from .worker import WorkerPool

PICTURES = 12  # per reason; of kept clips three times as many
STYLE_OF_PICTURES = """
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px; }
.clips figure { padding: 10px; } .clips img { margin: 0 0 6px; width: 100%; }
.clips p { margin: 0; font-size: 12px; overflow-wrap: anywhere; color: var(--soft); }
rect { fill: var(--faint); } rect.kept { fill: var(--accent); } line.limit { stroke: var(--ink); stroke-dasharray: 3 3; }
"""
Value = Callable[[Scores], "float | None"]
Limit = Callable[[LimitsConfig], float]


def _least_share(scores: Scores) -> float | None:
    shares = scores.object_share, scores.object_share_turn
    return None if shares[0] is None or shares[1] is None else min(shares[0], shares[1])


def _most_share(scores: Scores) -> float | None:
    shares = scores.object_share, scores.object_share_turn
    return None if shares[0] is None or shares[1] is None else max(shares[0], shares[1])


# title, value, name of the limit; the sign says on which side of it clips are kept
CHARTS: tuple[tuple[str, Value, str, str], ...] = (
    ("Largest change of colours", lambda s: s.largest_change, "cut", "<"),
    ("Share that moves", lambda s: s.motion, "motion", ">"),
    ("Shake", lambda s: s.shake, "shake", "<"),
    ("Resting edges", lambda s: s.overlay, "overlay", "<"),
    ("Smaller share of the object", _least_share, "object_share_least", ">"),
    ("Larger share of the object", _most_share, "object_share_most", "<"),
    ("Largest part of the object", lambda s: s.main_part, "main_part", ">"),
    ("Presence of the object", lambda s: s.presence, "presence", ">"),
    ("Agreement at the turning frame", lambda s: s.agreement, "agreement", ">"),
    ("Motion of the object", lambda s: s.object_motion, "object_motion", ">"),
    ("CLIP score", lambda s: s.clip_score, "clip_score", ">"),
)


def write_report(
    path: Path, verdicts: Sequence[Verdict], config: CurateConfig, workers: int = 1
) -> Path:
    """Write the page, `path`.

    Pictures of all clips would fill disks: only those that are shown are drawn, and kept beside the measurements.

    Raises:
        LoopAnimateError: the file cannot be written.
    """
    groups = _chosen(verdicts)
    rows = [verdict for group in groups.values() for verdict in group]
    with WorkerPool(config, workers) as pool, ThreadPoolExecutor(workers) as threads:
        journal = Journal(path, config.measure)
        drawn = list(threads.map(lambda verdict: _picture(verdict, pool, journal), rows))
    pictures = {id(verdict): picture for verdict, picture in zip(rows, drawn, strict=True)}
    body = "".join(
        (
            _header(verdicts, config),
            f"<section><h2>Reasons</h2>{_reasons(verdicts)}</section>",
            f"<section><h2>Scores and limits</h2>{_charts(verdicts, config.limits)}</section>",
            *(_group(name, group, pictures) for name, group in groups.items()),
        )
    )
    style = STYLE.read_text(encoding="utf-8") + STYLE_OF_PICTURES
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Curation of {escape(config.data.path.name)}</title><style>{style}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )
    with atomic_write(path) as partial:
        partial.write_text(html, encoding="utf-8", errors="backslashreplace")
    return path


def _chosen(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """The clips that are shown, by reason ("kept" first): evenly spread over those with that reason."""
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in sorted(verdicts, key=lambda one: one.status != KEPT):
        groups[verdict.reason or KEPT].append(verdict)
    return {
        name: _spread(group, 3 * PICTURES if name == KEPT else PICTURES)
        for name, group in groups.items()
    }


def _spread(items: list[Verdict], most: int) -> list[Verdict]:
    step = max(1.0, len(items) / most)
    return [items[int(i * step)] for i in range(min(most, len(items)))]


def _picture(verdict: Verdict, pool: WorkerPool, journal: Journal) -> bytes:
    """A JPEG, empty for a clip without scores."""
    if verdict.outcome.scores is None:
        return b""
    try:
        path = journal.folder / "pictures" / f"{journal.key(verdict.row)}.jpg"
        if path.is_file():
            return path.read_bytes()
        path.parent.mkdir(exist_ok=True)
    except OSError:  # the clip is gone since it was measured
        return b""
    if picture := pool.picture(verdict.row):
        with atomic_write(path) as partial:
            partial.write_bytes(picture)
    return picture


def _header(verdicts: Sequence[Verdict], config: CurateConfig) -> str:
    counts = Counter(verdict.status for verdict in verdicts)
    found_by = sorted({s.object_by for v in verdicts if (s := v.outcome.scores) and s.object_by})
    tiles = {
        "clips": f"{len(verdicts):,}",
        "kept": f"{counts[KEPT]:,}<small> {100 * counts[KEPT] / len(verdicts):.3g} %</small>",
        "rejected": f"{counts['rejected']:,}",
        "failed": f"{counts['failed']:,}",
        "quarantined": f"{counts['quarantined']:,}",
        "frames": f"{config.measure.span_frames}<small> per training clip</small>",
    }
    cells = "".join(
        f"<div><span>{name}</span><b>{value}</b></div>" for name, value in tiles.items()
    )
    by = f" · objects found by: {escape(', '.join(found_by))}" if found_by else ""
    return (
        f'<header><p class="kicker">LoopAnimate curation{by}</p><h1>{escape(str(config.data.path))}'
        f'</h1><div class="tiles">{cells}</div></header>'
    )


def _reasons(verdicts: Sequence[Verdict]) -> str:
    """Counts of first reasons, of all reasons, and of clips that one limit alone keeps out."""
    first = Counter(v.reason or KEPT for v in verdicts)
    every = Counter(fault.reason for v in verdicts for fault in v.faults)
    alone = Counter(v.faults[0].reason for v in verdicts if len(v.faults) == 1)
    lines = [
        f"<tr><td>{escape(name)}</td><td>{count:,}</td><td>{every[name] or '':}</td>"
        f"<td>{alone[name] or ''}</td></tr>"
        for name, count in first.most_common()
    ]
    rest = [name for name in every if name not in first]
    lines += [
        f"<tr><td>{escape(name)}</td><td></td><td>{every[name]:,}</td><td></td></tr>"
        for name in rest
    ]
    head = "<th>first reason</th><th>clips</th><th>has this reason</th><th>has no other</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _charts(verdicts: Sequence[Verdict], limits: LimitsConfig) -> str:
    charts = []
    for title, value, name, sign in CHARTS:
        values = [
            (found, verdict.status == KEPT)
            for verdict in verdicts
            if verdict.outcome.scores and (found := value(verdict.outcome.scores)) is not None
        ]
        if values:
            limit = float(getattr(limits, name))
            outside = sum(v > limit if sign == "<" else v < limit for v, _ in values)
            caption = f"limits.{name} {number(limit)}: {outside:,} of {len(values):,} outside"
            charts.append(histogram(title, caption, values, limit))
    return f'<p>Dark: kept clips. Dashed: the limit.</p><div class="grid">{"".join(charts)}</div>'


def _group(name: str, group: Sequence[Verdict], pictures: dict[int, bytes]) -> str:
    cards = []
    for verdict in group:
        data = base64.b64encode(pictures[id(verdict)]).decode("ascii")
        picture = f'<img alt="" src="data:image/jpeg;base64,{data}">' if data else ""
        details = "; ".join(f"{f.reason}: {f.detail}" for f in verdict.faults) or verdict.note
        loop = _loop_text(verdict.outcome.scores)
        cards.append(
            f"<figure>{picture}<p><b>{escape(verdict.row.id)}</b> {escape(verdict.row.caption)}</p>"
            f"<p>{escape(details)}{loop}</p></figure>"
        )
    return f'<section><h2>{escape(name)}</h2><div class="clips">{"".join(cards)}</div></section>'


def _loop_text(scores: Scores | None) -> str:
    return f" loops after {scores.loop_frames} frames" if scores and scores.loop_frames else ""
