"""Means over training seeds with intervals, differences from the paper's row, and the files that hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopanimate_core.evaluate.encoder import Encoder
from loopanimate_core.evaluate.figures import FIGURES
from loopanimate_core.evaluate.runner import Row
from loopanimate_core.evaluate.store import write_json
from loopanimate_core.evaluate.table import markdown, titles, with_interval
from loopanimate_core.files import atomic_write

from .tables import Ablation

# Student's t for a two-sided 95 % interval, by degrees of freedom.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
MOST_SEEDS = len(T_95) + 1
LOSS, SEAMLESS = "loss", "seamless"


@dataclass(frozen=True)
class Trained:
    """What is known of one run: its row's label, its seed, its loss, and the rows of its loops."""

    label: str
    seed: int
    loss: float
    loops: Sequence[Row]

    def figures(self) -> dict[str, float]:
        """Every figure as the mean over the pictures; missing where no loop has it."""
        made = [row for row in self.loops if row.made]
        found = {LOSS: self.loss}
        if made:
            found[SEAMLESS] = sum(bool(row.figures["passed"]) for row in made) / len(self.loops)
        for figure in FIGURES:
            values = [row.figures[figure.key] for row in made]
            known = [float(value) for value in values if value is not None]
            if known:
                found[figure.key] = math.fsum(known) / len(known)
        return found


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """Mean of one value per seed, with Student's 95 % interval; none for a single seed."""
    if not values:
        return {"mean": None, "low": None, "high": None, "seeds": []}
    mean = math.fsum(values) / len(values)
    low = high = None
    if len(values) > 1:
        spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
        half = T_95[len(values) - 2] * spread / math.sqrt(len(values))
        low, high = mean - half, mean + half
    return {"mean": mean, "low": low, "high": high, "seeds": list(values)}


def compare(ablation: Ablation, runs: Sequence[Trained]) -> dict[str, dict[str, Any]]:
    """For each label and figure: the mean over seeds, and the difference from the paper's row, seed by seed."""
    by_row = {
        label: {run.seed: run.figures() for run in runs if run.label == label}
        for label in ablation.rows
    }
    chosen = by_row[ablation.paper]
    found: dict[str, dict[str, Any]] = {}
    for label, seeds in by_row.items():
        found[label] = {}
        for name in (LOSS, SEAMLESS, *(figure.key for figure in FIGURES)):
            values = [figures[name] for figures in seeds.values() if name in figures]
            pairs = [
                figures[name] - chosen[seed][name]
                for seed, figures in seeds.items()
                if name in figures and name in chosen.get(seed, {})
            ]
            difference = None if label == ablation.paper else mean_of(pairs)
            found[label][name] = {**mean_of(values), "difference": difference}
    return found


def text_of(
    ablation: Ablation, found: Mapping[str, Mapping[str, Any]], encoder: Encoder, seeds: int
) -> str:
    """The table, and below it the differences from the paper's row, as Markdown."""
    labels = list(ablation.rows)
    headings, means, apart = titles(encoder), [["", *labels]], []
    others = [label for label in labels if label != ablation.paper]
    for name, title, digits in _lines(headings):
        means.append([title, *(with_interval(found[label][name], digits) for label in labels)])
        cells = [_signed(found[label][name]["difference"], digits) for label in others]
        apart.append([title, *cells])
    note = (
        f"Means of {seeds} training seeds, each over all pictures, with Student's 95 % intervals over the seeds. "
        f"Differences are from the paper's row ({ablation.paper}), seed by seed; bold ones have an interval without 0."
    )
    return "\n\n".join(
        [f"## {ablation.title}", note, markdown(means), markdown([["minus", *others], *apart])]
    )


def _lines(headings: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """Name, heading and digits of every line of the table."""
    lines = [(LOSS, "Held-out loss ↓", 4), (SEAMLESS, "Seamless ↑", 2)]
    for figure in FIGURES:
        arrow = f" {figure.better}" if figure.better in ("↑", "↓") else ""
        lines.append((figure.key, headings[figure.key] + arrow, figure.digits + 1))
    return lines


def _signed(value: Mapping[str, Any], digits: int) -> str:
    if value["mean"] is None:
        return "–"
    text = with_interval(value, digits)
    text = text if value["mean"] < 0 else f"+{text}"
    # An interval of rounding errors is beside 0 too.
    clear = (
        value["low"] is not None and round(value["low"], digits) * round(value["high"], digits) > 0
    )
    return f"**{text}**" if clear else text


def write_results(
    ablation: Ablation,
    name: str,
    found: Mapping[str, Any],
    encoder: Encoder,
    about: Mapping[str, Any],
    out: Path,
) -> list[Path]:
    """Write `NAME.json`, everything, and `NAME.md`, the tables."""
    content = {
        "format": "loopanimate-ablation/1",
        "title": ablation.title,
        "paper": ablation.paper,
        "encoder": {"name": encoder.name, "clip": encoder.is_clip, "sha256": encoder.identity},
        **about,
        "rows": found,
    }
    record, page = out / f"{name}.json", out / f"{name}.md"
    write_json(record, content)
    with atomic_write(page) as partial:
        partial.write_text(text_of(ablation, found, encoder, about["seeds"]) + "\n", "utf-8")
    return [record, page]
