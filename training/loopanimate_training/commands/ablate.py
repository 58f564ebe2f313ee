"""`loopanimate-train ablate`: the paper's Table 4 or Table 5 at the size of the mini, trained and evaluated."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from loopanimate_core.errors import LoopAnimateError

from ..ablation.tables import SCALES, Scale
from .inspect import guess_source
from .options import Commands, add_set_option

STICKERS = "emoji.json"  # of a cache for `data.source: mini`


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "ablate",
        help="train and evaluate every row of the paper's Table 4 (routing) or Table 5 (projections)",
    )
    parser.set_defaults(run=run)
    parser.add_argument("table", choices=("routing", "projections"), help="Table 4 or Table 5")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="folder of runs, loops, tables"
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder, table or tar with clips, or the folder `data` of `python -m loopanimate_training.mini`",
    )
    parser.add_argument(
        "--scale",
        choices=SCALES,
        default="mini",
        help="size of clips and length of runs: the mini's, in hours, or small, a table in about an hour of one core",
    )
    steps = ", ".join(f"{scale.steps} {name}" for name, scale in SCALES.items())
    parser.add_argument(
        "--steps", type=int, metavar="N", help=f"of every run (default by scale: {steps})"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of every row")
    parser.add_argument(
        "--start",
        type=Path,
        metavar="BUNDLE",
        help="whose encoders and sizes the new networks have (default: the bundled mini)",
    )
    parser.add_argument(
        "--base",
        type=Path,
        metavar="RUN",
        help="projections: what all rows continue, a run or a bundle (default: a network trained first for each seed)",
    )
    add_set_option(parser)
    parser.add_argument(
        "--pictures", type=Path, help="as in `loopanimate evaluate` (default: those of the package)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    parser.add_argument(
        "--sampling-steps", type=int, metavar="N", help="(default: the scale's, or the model's)"
    )
    parser.add_argument("--clip", type=Path, metavar="FOLDER", help="as in `loopanimate evaluate`")


def run(options: argparse.Namespace) -> int:
    from loopanimate_core.cli.sampling import pick_device
    from loopanimate_core.evaluate import read_cases
    from loopanimate_core.evaluate.cases import BUNDLED_LIST
    from loopanimate_core.evaluate.encoder import open_encoder
    from loopanimate_core.extras import require_module

    from ..ablation.results import MOST_SEEDS
    from ..ablation.run import Evaluation, run_ablation
    from ..ablation.runs import Plan, Stopped

    require_module("cv2", "the optical flow of an evaluation")  # before hours of work
    if not 1 <= options.seeds <= MOST_SEEDS:
        raise LoopAnimateError(f"--seeds must be from 1 to {MOST_SEEDS}, got {options.seeds}")
    if options.base is not None and options.table == "routing":
        raise LoopAnimateError("--base is for projections; the rows of routing train new networks")
    cpu = any(text.replace(" ", "") == "device=cpu" for text in options.set)
    device, _ = pick_device("cpu" if cpu else None, None)
    scale = SCALES[options.scale]
    plan = Plan(
        options.out,
        options.steps or scale.steps,
        clips_of(options.data, scale),
        options.set,
        options.start,
        options.base,
        scale,
    )
    steps = options.sampling_steps or scale.sampling_steps
    settings = {} if steps is None else {"steps": steps}
    limit = options.limit or (None if options.pictures else scale.pictures)
    cases = read_cases(options.pictures or BUNDLED_LIST, limit=limit)
    evaluation = Evaluation(cases, open_encoder(options.clip, device), settings, device)
    try:
        text, files = run_ablation(options.table, plan, options.seeds, evaluation, _say)
    except Stopped as stopped:
        print("stopped; the same command continues", file=sys.stderr)
        return stopped.exit_code
    print(f"\n{text}\n")
    for file in files:
        print(file)
    return 0


def clips_of(path: Path, scale: Scale) -> dict[str, Any]:
    """The data settings for a folder, table or tar.

    Raises:
        LoopAnimateError: it does not exist.
    """
    if not path.exists():
        raise LoopAnimateError(f"{path} does not exist")
    if (path / STICKERS).is_file():
        return {"source": "mini", "path": path, "clips": scale.drawn_clips}
    return {"source": guess_source(path), "path": path}


def _say(text: str) -> None:
    print(text, flush=True)
