"""How good are few steps? One table: the model's own sampler and its few-step weights at several numbers of steps.

    python benchmarks/few_steps.py --data WORK/data [--bundle FILE] [--subjects N] [--steps 4 8 25] [--json FILE]

The loops are those of `mini_quality.py`, whose docstring says what is measured; seconds are those of sampling alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from held_out import GROUPS, held_out_clips, open_caches
from mini_figures import MODEL, targets
from mini_quality import evaluate
from torch import Tensor

from loopanimate_core.conditions import LoopConditions
from loopanimate_core.files import atomic_write
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_core.settings import SamplingSettings
from loopanimate_training.data.stickers.motion import VERBS

OWN, FAST = "own weights", "few-step weights"


class TimedPipeline(LoopAnimatePipeline):
    """A pipeline that notes how long it samples."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seconds: list[float] = []

    def sample(
        self, conditions: LoopConditions, settings: SamplingSettings, callback: Any = None
    ) -> Tensor:
        began = time.perf_counter()
        latents = super().sample(conditions, settings, callback)
        self.seconds.append(time.perf_counter() - began)
        return latents


def rows(pipeline: TimedPipeline, steps: Sequence[int]) -> list[tuple[str, int, dict[str, Any]]]:
    """Weights, steps and the pipeline's settings of each row."""
    found = [(OWN, count, {"steps": count}) for count in steps]
    if pipeline.bundle.config.defaults.fast is not None:
        found += [(FAST, count, {"steps": count, "preset": "fast"}) for count in steps]
    return found


def main() -> None:
    options = parse_arguments()
    pipeline = TimedPipeline(LoopAnimatePipeline.from_bundle(options.bundle).bundle)
    config = pipeline.bundle.config
    clips = held_out_clips(
        *open_caches(options.data),
        {group: int(options.subjects) for group in options.groups},
        config.height_px,
        config.width_px,
        verbs=options.verbs,
        seed=options.seed,
    )
    results: list[dict[str, Any]] = []
    for weights, steps, sampling in rows(pipeline, options.steps):
        pipeline.seconds.clear()
        figures = evaluate(
            pipeline,
            clips,
            frames=options.frames,
            seed=options.seed,
            renderer_subjects=0,
            **sampling,
        )
        loops = figures.loops[MODEL]
        row = {target.title: target.figure(loops) for target in targets(figures.verbs)}
        results.append(
            {"weights": weights, "steps": steps, **row, "sampling, s": median(pipeline.seconds)}
        )
        print(f"{weights}, {steps} steps: {median(pipeline.seconds):.2f} s", flush=True)
    print(f"\n{options.frames} frames, {torch.get_num_threads()} threads\n")
    print(table(results))
    if options.json:
        with atomic_write(options.json) as path:
            path.write_text(json.dumps(results, indent=1), encoding="utf-8")


def table(results: Sequence[dict[str, Any]]) -> str:
    """A figure in each line, a row of `results` in each column."""
    lines = []
    for title in results[0]:
        cells = (_written(result[title]) for result in results)
        lines.append(f"{title:46}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def _written(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the sticker cache")
    parser.add_argument("--bundle", type=Path, help="the model (default: the bundled mini)")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=[GROUPS[0]])
    parser.add_argument("--subjects", type=int, default=24, help="subjects of each group")
    parser.add_argument("--verbs", nargs="+", choices=list(VERBS), default=list(VERBS))
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 25])
    parser.add_argument("--frames", type=int, default=35)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
