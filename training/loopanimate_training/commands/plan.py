"""`loopanimate-train plan`: the memory that a run will need, for several clip lengths and GPUs."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loopanimate_core.errors import LoopAnimateError

from .options import Commands, add_run_options, resolve_run

if TYPE_CHECKING:
    from ..config import RunConfig
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
        print(plan(config, options.frames, options.processes))
    return 0


def plan(config: RunConfig, frames: Sequence[int] = (), processes: int = 1) -> str:
    """The tables that `loopanimate-train plan` prints, for one of `processes` GPUs.

    Raises:
        LoopAnimateError: a clip length below 3, or `batch.size` is not divisible by the processes.
    """
    from ..model.fitting import (
        LADDER,
        find_networks,
        fit_line,
        most_frames,
        on_one_gpu,
        whole_memory,
        with_settings,
    )

    config = on_one_gpu(config, processes)
    if bad := [count for count in frames if count < 3]:
        raise LoopAnimateError(f"--frames must be 3 or more, got {bad[0]}")
    networks = find_networks(config.model)
    own = config.clip.frames
    shown = sorted({own, *(frames or (71, 141))})
    counted = (own, max(*shown, own + 2))
    lines = [_heading(config, networks.source), "", _first_row(shown)]
    chosen: list[tuple[str, RunMemory]] = []
    for name, settings in LADDER.items():
        rung = with_settings(config, settings)
        line = fit_line(rung, networks, counted)
        memory = whole_memory(rung, networks, line.step_at(own))
        totals = [memory.total - memory.step + line.step_at(count).peak for count in shown]
        chosen.append((name, memory))
        lines.append(
            f"{name:<32}"
            + "".join(f"{total / 1e9:>12.1f}" for total in totals)
            + " " * 18
            + "".join(f"{most_frames(memory, line, gpu_gb * 1e9) or '-':>7}" for gpu_gb in GPUS_GB)
        )
    lines += ["", *_parts_table(own, chosen), "", *_advice(chosen)]
    return "\n".join(lines)


def _heading(config: RunConfig, source: str) -> str:
    stage = f"{config.stage}{'-' * bool(config.variant)}{config.variant}"
    size = f"{config.clip.largest_shape} px"
    clips = f"{config.batch.size} clip{'s' * (config.batch.size > 1)} at a time on a GPU"
    return f"stage {stage}, {source}, {size}, {clips}, GB of 10^9 bytes"


def _first_row(shown: Sequence[int]) -> str:
    lengths = "".join(f"{f'{count} frames':>12}" for count in shown)
    gpus = "".join(f"{f'{gpu_gb} GB':>7}" for gpu_gb in GPUS_GB)
    return f"{'':<32}{lengths}   most frames in {gpus}"


def _parts_table(frames: int, rows: Sequence[tuple[str, RunMemory]]) -> list[str]:
    from ..model.memory import FLOAT32, RunMemory
    from ..optimizer import STATE_BYTES

    fields = [field.name for field in dataclasses.fields(RunMemory)]
    titles = {"average": "EMA", "step": "activations"}
    head = "".join(f"{titles.get(field, field):>13}" for field in (*fields, "total"))
    lines = [f"{f'of {frames} frames':<32}{head}"]
    for name, memory in rows:
        values = [*dataclasses.astuple(memory), memory.total]
        lines.append(f"{name:<32}" + "".join(f"{value / 1e9:>13.2f}" for value in values))
    trained = rows[0][1].gradients // FLOAT32
    saving = (STATE_BYTES["adamw"] - STATE_BYTES["adamw8bit"]) * trained
    lines.append(f"optimizer.kind=adamw8bit takes {saving / 1e9:.2f} GB less")
    return lines


def _advice(rows: Sequence[tuple[str, RunMemory]]) -> list[str]:
    """The fastest settings for each size of GPU."""
    from ..model.fitting import LADDER

    lines = []
    for gpu_gb in GPUS_GB:
        fitting = [name for name, memory in rows if memory.total <= gpu_gb * 1e9]
        settings = LADDER[fitting[0]] if fitting else {}
        how = " ".join(f"--set {key}={str(value).lower()}" for key, value in settings.items())
        lines.append(
            f"{gpu_gb:>3} GB: "
            + (how if fitting else "does not fit; smaller pictures or model.lora")
        )
    return lines
