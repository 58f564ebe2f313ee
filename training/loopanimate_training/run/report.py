"""A run's report: one self-contained HTML page with curves, loops, settings and checkpoints, without scripts."""

from __future__ import annotations

import base64
import datetime
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write, read_file
from loopanimate_core.parsing import parse_json

from ..config import flat_settings
from ..storage.checkpoint import STATE, checkpoints
from . import heartbeat
from . import log as runlog
from .curves import WIDE, curve, number

PAGE = "report.html"
STYLE = Path(__file__).parent / "report.css"
SHEET = re.compile(r"sheet-\d{1,12}\.png")
MAX_SHEETS = 6
MAX_SHEET_BYTES = 50_000_000
MAX_JSON_BYTES = 64 * 2**20
MAX_VIDEO_BYTES = 4_000_000
MAX_ROWS = 200
# field of the log: title and unit
CURVES = {
    "lr": ("Learning rate", ""),
    "grad_norm": ("Gradient norm", ""),
    "clips_per_s": ("Speed", " clips/s"),
    "data_wait_s": ("Waiting for data, per step", " s"),
    "memory_gb": ("Memory", " GB"),
}
FIGURES = {
    "verdict": "verdict",
    "seam_ratio": "seam / step",
    "motion": "motion",
    "mse_f0": "MSE of frame 0",
    "colour_step": "colour step",
    "ssim_adjacent": "SSIM of neighbours",
}


def write_page(
    run: Path, target: Path | None = None, settings: Mapping[str, Any] | None = None
) -> Path:
    """Write the report of a run, finished or not, to `target` (default: `report.html` in its folder).

    Args:
        settings: of the run; by default those in its newest checkpoint, or none before the first.

    Raises:
        LoopAnimateError: the folder does not hold a run.
    """
    rows = [row for row in runlog.read_log(run / runlog.FILE) if "step" in row]
    saved = checkpoints(run) if run.is_dir() else []
    if not rows and not saved:
        raise LoopAnimateError(f"{run} does not hold a run: it has neither a log nor a checkpoint")
    target = target or run / PAGE
    config = settings or (_mapping(_read_json(saved[-1] / STATE).get("config")) if saved else {})
    body = "".join(
        (
            _header(run, rows, config),
            _section("Curves", _curves(rows)),
            _section("Loops", _loops(run)),
            _section("Settings", _settings(config)),
            _section("Checkpoints", _checkpoints(saved)),
            _section("What happened", _events(rows)),
            _section("Quarantine", _quarantine(run)),
        )
    )
    style = STYLE.read_text(encoding="utf-8")
    title = _title(run, config)
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: training report</title><style>{style}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )
    with atomic_write(target) as partial:
        partial.write_text(html, encoding="utf-8", errors="replace")
    return target


def _header(run: Path, rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> str:
    steps = [row for row in rows if "loss" in row]
    beat = _read_json(run / heartbeat.FILE)
    last = steps[-1] if steps else {}
    of = _whole(config, "steps", _whole(beat, "steps", 0))
    state = str(beat.get("state", heartbeat.FINISHED if last.get("step") == of else "unfinished"))
    clip, batch = _mapping(config.get("clip")), _mapping(config.get("batch"))
    clips_per_step = _whole(batch, "size", 1) * _whole(batch, "accumulate", 1)
    tiles = {
        "step": f"{last.get('step', 0):,}<small> of {of:,}</small>",
        "loss, smoothed": number(last["mean_loss"]) if last.get("mean_loss") else "–",
        "clips seen": f"{last.get('step', 0) * clips_per_step:,}" if batch else "–",
        "speed": f"{number(last['clips_per_s'])}<small> clips/s</small>"
        if "clips_per_s" in last
        else "–",
        "time": _duration(steps),
        "frames": f"{2 * _whole(clip, 'f', 1) - 1}<small> at {_sizes(clip)}</small>"
        if clip
        else "–",
    }
    cells = "".join(
        f"<div><span>{name}</span><b>{value}</b></div>" for name, value in tiles.items()
    )
    title = _title(run, config)
    kind = state if state in (heartbeat.FINISHED, heartbeat.FAILED) else "other"
    return (
        f'<header><p class="kicker">LoopAnimate training{escape(_kind_of_run(config))}</p>'
        f'<h1>{title} <em class="{kind}">{escape(state)}</em></h1><div class="tiles">{cells}</div></header>'
    )


def _sizes(clip: Mapping[str, Any]) -> str:
    shapes = clip.get("shapes")
    if not isinstance(shapes, (list, tuple)) or not shapes:
        shapes = [(clip.get("width_px"), clip.get("height_px"))]
    pairs = [shape for shape in shapes if isinstance(shape, (list, tuple)) and len(shape) == 2]
    return ", ".join(f"{_cell(width)} × {_cell(height)}" for width, height in pairs)


def _kind_of_run(config: Mapping[str, Any]) -> str:
    """Stage, variant and what trains; empty without settings."""
    if not config:
        return ""
    variant = f"-{config['variant']}" if config.get("variant") else ""
    parts = _mapping(config.get("model")).get("train")
    trained = ", ".join(map(str, parts)) if isinstance(parts, list) and parts else "adapters"
    return f" · stage {config.get('stage', '?')}{variant} · trains {trained}"


def _curves(rows: Sequence[Mapping[str, Any]]) -> str:
    steps = [row for row in rows if row.get("loss") is not None]
    loss = [(row["step"], row["loss"]) for row in steps]
    mean = [(row["step"], row["mean_loss"]) for row in steps if row.get("mean_loss") is not None]
    first = curve("Loss, smoothed", loss, mean, width=WIDE)
    fixed = [(row["step"], row["validation_loss"]) for row in rows if row.get("validation_loss")]
    others = [
        curve(title, [(row["step"], row[name]) for row in steps if row.get(name)], unit=unit)
        for name, (title, unit) in CURVES.items()
    ]
    others.insert(0, curve("Loss of the average on validation clips", fixed))
    if not first:
        return ""
    return f'<div class="wide">{first}</div><div class="grid">{"".join(others)}</div>'


def _loops(run: Path) -> str:
    sheets = [path for path in sorted(run.glob("sheet-*.png")) if SHEET.fullmatch(path.name)]
    sheets = [path for path in sheets if path.is_file()]
    parts = []
    for path in reversed(_spread(sheets, MAX_SHEETS)):
        step = int(path.stem.removeprefix("sheet-"))
        if path.stat().st_size > MAX_SHEET_BYTES:
            continue
        parts.append(f"<h3>Step {step:,}</h3>")
        video = run / f"loops-{step:08d}.mp4"
        if path == sheets[-1] and video.is_file() and video.stat().st_size < MAX_VIDEO_BYTES:
            parts.append(
                f'<video autoplay loop muted playsinline src="{_data_uri(video, "video/mp4")}"></video>'
            )
        parts.append(f'<img alt="Sheet of step {step}" src="{_data_uri(path, "image/png")}">')
        parts.append(_figures(_read_json(run / f"loops-{step:08d}.json").get("loops")))
    return "".join(parts)


def _figures(loops: Any) -> str:
    found = [_mapping(loop) for loop in loops[:MAX_ROWS]] if isinstance(loops, list) else []
    rows = [
        [escape(str(loop.get("prompt", ""))), *(_cell(loop.get(name)) for name in FIGURES)]
        for loop in found
    ]
    return _table(["prompt", *FIGURES.values()], rows)


def _settings(config: Mapping[str, Any]) -> str:
    groups: dict[str, list[str]] = {}
    for name, value in flat_settings(config).items():
        section, dot, key = name.partition(".")
        group, shown = (section, key) if dot else ("run", name)
        groups.setdefault(group, []).append(
            f"<tr><td>{escape(shown)}</td><td>{_cell(value)}</td></tr>"
        )
    tables = [
        f"<div><h3>{escape(name)}</h3><table>{''.join(rows)}</table></div>"
        for name, rows in groups.items()
    ]
    return f'<div class="settings">{"".join(tables)}</div>' if tables else ""


def _checkpoints(saved: Iterable[Path]) -> str:
    rows = []
    for path in saved:
        size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        at = datetime.datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
        rows.append([escape(path.name), f"{size / 1e6:,.1f} MB", at])
    return _table(["folder", "size", "written"], rows)


def _events(rows: Iterable[Mapping[str, Any]]) -> str:
    events = [row for row in rows if "event" in row][-MAX_ROWS:]
    return _table(
        ["step", "event"], [[f"{row['step']:,}", escape(str(row["event"]))] for row in events]
    )


def _quarantine(run: Path) -> str:
    bad = runlog.read_log(run / "quarantine.jsonl")
    rows = [[escape(str(row.get("clip"))), escape(str(row.get("error")))] for row in bad[:MAX_ROWS]]
    more = f"<p>and {len(bad) - MAX_ROWS:,} more</p>" if len(bad) > MAX_ROWS else ""
    return _table(["clip", "why"], rows) + more


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>" if body else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    top = "".join(f"<th>{name}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None or value == "":
        return '<span class="none">–</span>'
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return escape(", ".join(map(str, value))) or "none"
    return escape(str(value))


def _duration(steps: Sequence[Mapping[str, Any]]) -> str:
    """Time between logged steps, without breaks in between (gaps of more than ten minutes)."""
    times = [float(row["time"]) for row in steps if "time" in row]
    seconds = sum(b - a for a, b in itertools.pairwise(times) if 0 < b - a < 600)
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}<small> h </small>{minutes}<small> min</small>"


def _spread(paths: Sequence[Path], most: int) -> list[Path]:
    """At most `most` of the paths, evenly spread, the last one included."""
    if len(paths) <= most:
        return list(paths)
    return [paths[round(i * (len(paths) - 1) / (most - 1))] for i in range(most)]


def _data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return _mapping(
            parse_json(read_file(path, "file", MAX_JSON_BYTES), path.name, finite=False)
        )
    except LoopAnimateError:
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    """An object of a file that may hold anything; empty for another kind of value."""
    return value if isinstance(value, dict) else {}


def _whole(values: Mapping[str, Any], name: str, default: int) -> int:
    value = values.get(name)
    return value if type(value) is int and abs(value) < 2**53 else default


def _title(run: Path, config: Mapping[str, Any]) -> str:
    return escape(str(config.get("title") or run.resolve().name))
