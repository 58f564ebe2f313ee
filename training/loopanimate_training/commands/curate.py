"""`loopanimate-train curate`: from raw captioned videos to the Salient data set (Sec. 3.5)."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopanimate_core.errors import LoopAnimateError

from .inspect import SETTINGS_SUFFIXES, guess_source
from .options import Commands, add_set_option, add_shard_option, target_path

if TYPE_CHECKING:
    from ..config import CurateConfig


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "curate",
        help="choose the clips of a data set that show one moving object, for stages 2 and 3",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "target",
        type=target_path,
        help="settings of a curation (.yaml), or a folder, table or tar with clips; also a URL, such as s3://bucket/clips",
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="TABLE", help="table to write (.parquet)"
    )
    parser.add_argument(
        "--stage",
        metavar="N",
        default="3",
        help="stage whose clips must fit (default 3: 103 frames)",
    )
    add_set_option(parser)
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one per CPU core)"
    )
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    add_shard_option(
        parser,
        "only measure the I-th of N shares; then run once without it, which writes the table",
    )
    parser.add_argument(
        "--retry", action="store_true", help="measure clips in quarantine once more"
    )


def run(options: argparse.Namespace) -> int:
    from ..curate.driver import count_rows, decide, list_rows, measure_all
    from ..curate.report import write_report
    from ..curate.table import require_pyarrow, write_table
    from ..data.shard import Shard

    config = resolve_target(options.target, options.stage, options.set)
    shard, workers = Shard.parse(options.shard or "1/1"), options.workers or os.cpu_count() or 1
    if "://" in str(options.out) or options.out.parts[0].endswith(":"):  # pathlib keeps one slash
        raise LoopAnimateError(
            f"the table is written to a folder of this machine, but {options.out} is a URL"
        )
    if options.out.suffix.lower() != ".parquet":
        raise LoopAnimateError(f"the table must end in .parquet, got {options.out}")
    if workers < 1:
        raise LoopAnimateError(f"--workers must be at least 1, got {workers}")
    require_pyarrow()  # before hours of work
    rows = list_rows(config)
    outcomes = measure_all(
        rows,
        config,
        options.out,
        shard=shard,
        workers=workers,
        executor=options.executor,
        retry=options.retry,
    )
    if options.shard is not None:
        print(f"share {options.shard}: {len(outcomes):,} clips are measured")
        return 0
    verdicts = decide(rows, outcomes, config)
    inside = write_table(options.out, verdicts)
    page = write_report(options.out.with_suffix(".html"), verdicts, config, workers)
    print("\n".join(count_rows(verdicts)))
    print(f"wrote {options.out}, and {page} with pictures and scores")
    allow = "" if inside else " with data.outside: allow, because clips are outside its folder"
    print(f"train with data.path: {options.out}{allow}")
    return 0


def resolve_target(target: Path, stage: str, overrides: list[str]) -> CurateConfig:
    """The curation of a settings file, or one over a folder, a table or a tar.

    Raises:
        LoopAnimateError: `target` does not exist, or the settings are wrong.
    """
    from ..config import resolve_curation
    from ..stages import parse_run_name, stage_defaults

    f = stage_defaults(*parse_run_name(stage))["clip"]["f"]
    defaults: dict[str, Any] = {"measure": {"f": f}}
    file = target if target.suffix.lower() in SETTINGS_SUFFIXES else None
    if file is None:
        if not target.exists():
            raise LoopAnimateError(f"{target} does not exist")
        defaults["data"] = {"source": guess_source(target), "path": target}
    config = resolve_curation(defaults, file, overrides)
    if config.data.source == "mini":
        raise LoopAnimateError(
            "data.source is mini, which draws its clips: there is nothing to curate"
        )
    if config.data.mix:
        raise LoopAnimateError(
            f"data.mix has {len(config.data.mix)} more data sets, but one is curated at a time; mix the tables that come out"
        )
    return config
