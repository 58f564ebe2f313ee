"""`loopanimate-train plan`: the memory that a run will need, for several clip lengths and GPUs."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError

from .options import Commands, add_run_options, resolve_run

if TYPE_CHECKING:
    from ..config import RunConfig
    from ..model.fitting import Networks
    from ..model.memory import RunMemory

GPUS_GB = (12, 16, 24, 40, 48, 80)
# Settings that a plan does not need; they do not change the memory.
PLACEHOLDERS: dict[str, Any] = {
    "out": "run",
    "model": {"start": "full-size"},
    "data": {"source": "videos", "path": "clips", "cache": "cache"},
}


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("plan", help="predict how much memory a run needs")
    parser.set_defaults(run=run)
    add_run_options(parser)
    parser.add_argument(
        "--frames",
        type=int,
        nargs="+",
        default=[],
        metavar="F",
        help="clip lengths (default: 71 141)",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="number of GPUs that share batch.size (default 1)",
    )
    parser.add_argument(
        "--measure", action="store_true", help="take two real steps on the GPU, and time them"
    )


def run(options: argparse.Namespace) -> int:
    config = resolve_run(options, PLACEHOLDERS)
    if options.measure:
        from ..model.measuring import measure

        print(measure(config, options.frames, options.processes))
    else:
        print(plan(config, options.frames, options.processes, show_progress=True))
    return 0


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Settings, and what they need: bytes of training, and of drawing a sheet (0 if the run draws none)."""

    settings: dict[str, Any]
    training: int
    sheet: int = 0

    @property
    def total(self) -> int:
        return max(self.training, self.sheet)


def plan(
    config: RunConfig, frames: Sequence[int] = (), processes: int = 1, show_progress: bool = False
) -> str:
    """The tables that `loopanimate-train plan` prints, for one of `processes` GPUs.

    Raises:
        LoopAnimateError: a clip length below 3, or `batch.size` is not divisible by the processes.
    """
    from ..model.fitting import LADDER, find_networks, on_one_gpu
    from .dry_run import mix_rows

    config = on_one_gpu(config, processes)
    if bad := [count for count in frames if count < 3]:
        raise LoopAnimateError(f"--frames must be 3 or more, got {bad[0]}")
    networks = find_networks(config.model)
    own = config.clip.frames
    shown = sorted({own, *(frames or (71, 141))})
    heading = [_heading(config, networks.source), *mix_rows(config.data)]
    lines = [*heading, "", _first_row(shown)]
    found: list[tuple[str, RunMemory, int]] = []
    bar = tqdm(LADDER, "counting", unit="setting", disable=not show_progress, leave=False)
    for name in bar:
        row, memory, sheet = _count_rung(config, networks, name, shown)
        lines.append(row)
        found.append((name, memory, sheet))
    lines += ["", *_parts_table(config, found), "", *_advice(config, networks, found)]
    return "\n".join(lines)


def _count_rung(
    config: RunConfig, networks: Networks, name: str, shown: Sequence[int]
) -> tuple[str, RunMemory, int]:
    """The first table's row for some settings, the memory of a step of the run with them, and of a sheet."""
    from ..model.fitting import (
        LADDER,
        fit_line,
        most_frames,
        whole_memory,
        whole_sheet,
        with_settings,
    )
    from ..model.sheet_memory import sampling_bytes

    own = config.clip.frames
    rung = with_settings(config, LADDER[name])
    line = fit_line(rung, networks, (own, max(*shown, own + 2)))
    memory = whole_memory(rung, networks, line.step_at(own))
    sheet = whole_sheet(rung, networks, memory, sampling_bytes(rung, networks.unet))
    totals = [memory.total - memory.step + line.step_at(count).peak for count in shown]
    row = (
        f"{name:<32}"
        + "".join(f"{total / 1e9:>12.1f}" for total in totals)
        + " " * 18
        + "".join(f"{most_frames(memory, line, gpu_gb * 1e9) or '-':>7}" for gpu_gb in GPUS_GB)
    )
    return row, memory, sheet


def _heading(config: RunConfig, source: str) -> str:
    stage = f"{config.stage}{'-' * bool(config.variant)}{config.variant}"
    size = f"{config.clip.largest_shape} px"
    clips = f"{config.batch.size} clip{'s' * (config.batch.size > 1)} at a time on a GPU"
    cached = "no cache" if config.data.cache is None else "clips in a filled cache"
    return f"stage {stage}, {source}, {size}, {clips}, {cached}, GB of 10^9 bytes"


def _first_row(shown: Sequence[int]) -> str:
    lengths = "".join(f"{f'{count} frames':>12}" for count in shown)
    gpus = "".join(f"{f'{gpu_gb} GB':>7}" for gpu_gb in GPUS_GB)
    return f"{'':<32}{lengths}   most frames in {gpus}"


def _parts_table(config: RunConfig, rows: Sequence[tuple[str, RunMemory, int]]) -> list[str]:
    from ..model.memory import RunMemory

    fields = [field.name for field in dataclasses.fields(RunMemory)]
    titles = {"average": "EMA", "step": "activations"}
    head = "".join(f"{titles.get(field, field):>13}" for field in (*fields, "total", "a sheet"))
    lines = [f"{f'of {config.clip.frames} frames':<32}{head}"]
    for name, memory, sheet in rows:
        values = [*dataclasses.astuple(memory), memory.total, sheet]
        lines.append(f"{name:<32}" + "".join(f"{value / 1e9:>13.2f}" for value in values))
    if saving := _saved_by_8_bits(config, rows[0][1]):
        lines.append(f"optimizer.kind=adamw8bit takes {saving / 1e9:.2f} GB less")
    lines.append(
        "a sheet (validation.every_steps) is drawn between steps, with VAE and encoders on the GPU"
    )
    return lines


def _saved_by_8_bits(config: RunConfig, memory: RunMemory) -> int:
    """Bytes that 8-bit AdamW would save; 0 if another optimiser was chosen."""
    from ..model.memory import FLOAT32
    from ..optimizer import STATE_BYTES

    per_weight = STATE_BYTES["adamw"] - STATE_BYTES["adamw8bit"]
    return per_weight * (memory.gradients // FLOAT32) if config.optimizer.kind == "adamw" else 0


def _advice(
    config: RunConfig, networks: Networks, rows: Sequence[tuple[str, RunMemory, int]]
) -> list[str]:
    """The fastest settings for each size of GPU; the smallest ones are only counted if they are needed."""
    from ..model.fitting import LADDER, SMALLEST, whole_memory, with_settings
    from ..model.memory import step_memory

    draws = bool(config.validation.every_steps)
    saving = _saved_by_8_bits(config, rows[0][1])
    plain = [Candidate(LADDER[name], memory.total, draws * sheet) for name, memory, sheet in rows]
    candidates = [*plain, *(_in_8_bits(one, saving) for one in plain if saving)]
    if min(one.total for one in candidates) > min(GPUS_GB) * 1e9:
        rung = with_settings(config, SMALLEST)
        step = step_memory(rung, networks.unet, config.clip.frames)
        memory = whole_memory(rung, networks, step)
        smallest = Candidate(SMALLEST, memory.total, plain[-1].sheet)
        candidates += [smallest, *([_in_8_bits(smallest, saving)] if saving else [])]
    return [_advice_for(gpu_gb, candidates) for gpu_gb in GPUS_GB]


def _in_8_bits(plain: Candidate, saving: int) -> Candidate:
    settings = {**plain.settings, "optimizer.kind": "adamw8bit"}
    return Candidate(settings, plain.training - saving, plain.sheet and plain.sheet - saving)


def _advice_for(gpu_gb: int, candidates: Sequence[Candidate]) -> str:
    chosen = next((one for one in candidates if one.total <= gpu_gb * 1e9), None)
    if chosen is None:
        least = min(candidates, key=lambda one: one.total)
        drawing = ", most of it for sheets" if least.sheet > least.training else ""
        return (
            f"{gpu_gb:>3} GB: does not fit: {least.total / 1e9:.1f} GB at least{drawing}; train smaller pictures, or "
            "adapters (--stage 1-lora)"
        )
    how = " ".join(f"--set {key}={str(value).lower()}" for key, value in chosen.settings.items())
    return f"{gpu_gb:>3} GB: {how}"
