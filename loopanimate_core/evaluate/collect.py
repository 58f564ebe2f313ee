"""The answers of a study → Table 3 (Q_S and Q_M of each system) and Table 4 (with routing and Loop-C)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ..errors import LoopAnimateError
from .figures import RESAMPLES, percentiles
from .store import write_json
from .study import ANSWERS_FORMAT, KEY_FORMAT, SCALE
from .table import markdown, with_interval, write_csv

JSON, CSV = "study.json", "study.csv"
SCORES = ("q_s", "q_m")
_SHORT = {"image": "IE", "text": "TE", "none": "-"}  # as Table 4 writes them


def collect_answers(files: Sequence[Path], key_file: Path, seed: int = 0) -> dict[str, Any]:
    """Mean scores of each system with 95 % intervals.

    A loop that someone saw twice counts once, with its mean. The intervals resample both the participants and the
    pictures, because the next study will have others of both.

    Raises:
        LoopAnimateError: a file is not one of this study's, is incomplete, or has scores outside 1..3.
    """
    key = _read(key_file, KEY_FORMAT)
    participants: dict[str, Path] = {}
    scores: dict[str, dict[tuple[str, str], list[tuple[int, int]]]] = {}
    for file in files:
        found = _read(file, ANSWERS_FORMAT)
        if found.get("study") != key.get("study"):
            raise LoopAnimateError(f"{file} answers another study than that of {key_file}")
        person = str(found.get("participant"))
        if person in participants:
            raise LoopAnimateError(f"{file} and {participants[person]} are of the same participant")
        participants[person] = file
        for answer in found.get("answers") or []:
            loop, given = _answer(answer, key["loops"], file)
            cell = (person, loop["picture"])
            scores.setdefault(loop["system"], {}).setdefault(cell, []).append(given)
    if not scores:
        raise LoopAnimateError("there are no answers in these files")
    draw = np.random.default_rng(seed)
    return {
        "format": "loopanimate-study/1",
        "study": key["study"],
        "participants": len(participants),
        "systems": {
            label: {**_means(scores.get(label, {}), draw), **facts}
            for label, facts in key["systems"].items()
        },
    }


def _read(path: Path, wanted: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoopAnimateError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise LoopAnimateError(f"{path} is not a JSON file ({error})") from error
    if not isinstance(content, dict) or content.get("format") != wanted:
        kind = "the key of a study" if wanted == KEY_FORMAT else "the answers of a study"
        raise LoopAnimateError(f"{path} does not hold {kind}")
    return content


def _answer(
    answer: Any, loops: Mapping[str, Mapping[str, str]], file: Path
) -> tuple[Mapping[str, str], tuple[int, int]]:
    """The loop that was rated, and its two scores."""
    if not isinstance(answer, dict) or answer.get("loop") not in loops:
        raise LoopAnimateError(f"{file} rates a loop that is not in the study")
    subject, motion = (answer.get(name) for name in SCORES)
    if not (_is_score(subject) and _is_score(motion)):
        raise LoopAnimateError(
            f"scores must be {SCALE[0]} to {SCALE[-1]}, got {subject!r} and {motion!r} in {file}"
        )
    return loops[answer["loop"]], (subject, motion)


def _is_score(value: Any) -> TypeGuard[int]:
    return type(value) is int and value in SCALE


def _means(
    cells: Mapping[tuple[str, str], Sequence[tuple[int, int]]], draw: np.random.Generator
) -> dict[str, Any]:
    """Mean and interval of both scores of one system; None without answers."""
    people = sorted({person for person, _ in cells})
    pictures = sorted({picture for _, picture in cells})
    found: dict[str, Any] = {"ratings": sum(len(given) for given in cells.values())}
    for column, name in enumerate(SCORES):
        grid = np.full((len(people), len(pictures)), np.nan)
        for (person, picture), given in cells.items():
            place = people.index(person), pictures.index(picture)
            grid[place] = np.mean([scores[column] for scores in given])
        mean = float(np.nanmean(grid)) if grid.size else None
        low, high = _interval(grid, draw) if len(cells) > 1 else (None, None)
        found[name] = {"mean": mean, "low": low, "high": high}
    return found


def _interval(grid: np.ndarray, draw: np.random.Generator) -> tuple[float, float]:
    """Rows and columns drawn again, with replacement; cells that nobody rated count for nothing."""
    rows, columns = (draw.integers(0, side, (RESAMPLES, side)) for side in grid.shape)
    drawn = grid[rows[:, :, None], columns[:, None, :]].reshape(RESAMPLES, -1)
    rated = drawn[~np.isnan(drawn).all(1)]
    return percentiles(np.nanmean(rated, 1))


def text_tables(results: Mapping[str, Any]) -> str:
    """Tables 3 and 4 as Markdown."""
    systems = results["systems"]
    names = list(systems)
    third = [["Method", *names]]
    for title, name in (("Q_S ↑", "q_s"), ("Q_M ↑", "q_m")):
        third.append([title, *(with_interval(systems[label][name], 1) for label in names)])
    fourth = [["System", "Down", "Middle", "Up", "Q_S ↑", "Q_M ↑", "Loop-C ↑"]]
    for label in names:
        facts = systems[label]
        routing = [_SHORT.get(part, part) for part in facts.get("routing") or ("–",) * 3]
        scores = [with_interval(facts["q_s"], 1), with_interval(facts["q_m"], 1)]
        fourth.append([label, *routing, *scores, with_interval(facts["loop_c"], 3)])
    people = results["participants"]
    return (
        f"Table 3: {people} participant{'s' if people != 1 else ''}, scores 1 to 3\n\n"
        f"{markdown(third)}\n\nTable 4\n\n{markdown(fourth)}"
    )


def write_results(results: Mapping[str, Any], out: Path) -> list[Path]:
    """Write `study.json` and `study.csv`, a line per system."""
    write_json(out / JSON, results)
    write_csv(out / CSV, [_line(label, facts) for label, facts in results["systems"].items()])
    return [out / JSON, out / CSV]


def _line(label: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    down, middle, up = facts.get("routing") or (None, None, None)
    line = {"system": label, "down": down, "middle": middle, "up": up, "ratings": facts["ratings"]}
    for name in (*SCORES, "loop_c"):
        for part, ending in (("mean", ""), ("low", "_low"), ("high", "_high")):
            line[f"{name}{ending}"] = facts[name][part]
    return line
