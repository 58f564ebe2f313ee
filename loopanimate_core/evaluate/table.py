"""The table: means over pictures with intervals, as JSON, CSV, and lines for a terminal."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import atomic_write
from .encoder import Encoder
from .figures import FIGURES, Figure, interval
from .runner import Row
from .store import write_json

JSON, TABLE, LOOPS = "evaluation.json", "table.csv", "loops.csv"


def summarise(rows: Sequence[Row], seed: int = 0) -> list[dict[str, Any]]:
    """A summary of each system and kind, in the order of the rows.

    Each has `figures`: by key, the mean over its pictures, the bootstrap's 95 % interval and the number of
    loops that have the figure (a ratio is missing where nothing moves); `verdicts` counts the loops of each verdict.
    """
    labels = list(dict.fromkeys(row.label for row in rows))
    return [_summary([row for row in rows if row.label == label], seed) for label in labels]


def _summary(rows: Sequence[Row], seed: int) -> dict[str, Any]:
    made = [row for row in rows if row.made]
    figures = {}
    for figure in FIGURES:
        values = [row.figures[figure.key] for row in made if row.figures[figure.key] is not None]
        limits = interval(values, seed)
        figures[figure.key] = {
            "mean": sum(values) / len(values) if values else None,
            "low": limits and limits[0],
            "high": limits and limits[1],
            "loops": len(values),
        }
    return {
        "system": rows[0].system,
        "kind": rows[0].kind,
        "label": rows[0].label,
        "pictures": len(rows),
        "made": len(made),
        "seamless": sum(row.figures["passed"] for row in made),
        "seamless_files": sum(row.figures["file_passed"] for row in made),
        "verdicts": dict(Counter(row.figures["verdict"] for row in made).most_common()),
        "figures": figures,
    }


def write_tables(
    rows: Sequence[Row],
    encoder: Encoder,
    out: Path,
    about: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> list[Path]:
    """Write `evaluation.json` (everything), `table.csv` (a line per system) and `loops.csv` (a line per loop).

    Args:
        about: what else belongs to the record, such as the settings.
    """
    summaries = summarise(rows, seed)
    content = {
        "format": "loopanimate-evaluation/1",
        "encoder": {"name": encoder.name, "clip": encoder.is_clip, "sha256": encoder.identity},
        **(about or {}),
        "systems": summaries,
        "loops": [row.to_dict() for row in rows],
    }
    write_json(out / JSON, content)
    write_csv(out / TABLE, map(_table_line, summaries))
    write_csv(out / LOOPS, map(_loop_line, rows))
    return [out / JSON, out / TABLE, out / LOOPS]


def titles(encoder: Encoder) -> dict[str, str]:
    """The heading of each figure; those of another encoder than CLIP say so."""
    return {f.key: encoder.title(f.title) if f.encoded else f.title for f in FIGURES}


def text_table(summaries: Sequence[Mapping[str, Any]], encoder: Encoder) -> str:
    """The table as Markdown: a column per system, because there are more figures than systems."""
    headings = titles(encoder)
    rows = [["", *(summary["label"] for summary in summaries)]]
    for figure in FIGURES:
        arrow = f" {figure.better}" if figure.better in ("↑", "↓") else ""
        cells = [cell(summary, figure) for summary in summaries]
        rows.append([headings[figure.key] + arrow, *cells])
    rows.append(["Seamless ↑", *(f"{s['seamless']} of {s['pictures']}" for s in summaries)])
    rows.append(
        ["Seamless file ↑", *(f"{s['seamless_files']} of {s['pictures']}" for s in summaries)]
    )
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def cell(summary: Mapping[str, Any], figure: Figure) -> str:
    """The mean of a figure and its interval."""
    return with_interval(summary["figures"][figure.key], figure.digits)


def with_interval(value: Mapping[str, Any], digits: int) -> str:
    """`0.941 [0.932, 0.950]`, or `–` where there is nothing."""
    if value["mean"] is None:
        return "–"
    mean = f"{value['mean']:.{digits}f}"
    if value["low"] is None:
        return mean
    low, high = (f"{value[name]:.{digits}f}" for name in ("low", "high"))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _table_line(summary: Mapping[str, Any]) -> dict[str, Any]:
    line = {
        name: summary[name]
        for name in ("system", "kind", "pictures", "made", "seamless", "seamless_files")
    }
    for figure in FIGURES:
        value = summary["figures"][figure.key]
        line |= {
            figure.key: value["mean"],
            f"{figure.key}_low": value["low"],
            f"{figure.key}_high": value["high"],
        }
    return line


def _loop_line(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {
        "system": row.system,
        "kind": row.kind,
        "picture": row.picture,
        "prompt": row.prompt,
        "file": row.file,
        "reason": row.reason,
    }
    for name in ("verdict", "file_verdict", *(figure.key for figure in FIGURES)):
        line[name] = row.figures.get(name)
    return line


def write_csv(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write lines with the same keys as CSV, completely or not at all."""
    text, rows = io.StringIO(newline=""), list(lines)
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8", newline="")
