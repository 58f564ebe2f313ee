"""A whole ablation: all runs, all loops, the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from loopanimate_core.evaluate import BundleSystem, evaluate, write_page
from loopanimate_core.evaluate.cases import Case
from loopanimate_core.evaluate.encoder import Encoder

from .results import Trained, compare, text_of, write_results
from .runs import Finished, Plan, finish
from .tables import NEW_NETWORK, ablation_named

Say = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """How the trained rows are evaluated.

    Attributes:
        settings: of sampling; what is missing is the model's own. Loops have the length of the row's clips.
    """

    cases: Sequence[Case]
    encoder: Encoder
    settings: dict[str, Any] = field(default_factory=dict)
    device: torch.device | str = "cpu"


def run_ablation(
    name: str, plan: Plan, seeds: int, evaluation: Evaluation, say: Say = print
) -> tuple[str, list[Path]]:
    """Train, evaluate and compare, as far as this is not done yet; returns the tables and the files.

    Raises:
        LoopAnimateError: a run cannot be trained.
        Stopped: a run was asked to stop; the same call continues.
    """
    ablation = ablation_named(name)
    plan.out.mkdir(parents=True, exist_ok=True)
    # Seed by seed, so that a table with fewer seeds is complete early.
    finished: dict[tuple[str, int], Finished] = {}
    for seed in range(seeds):
        if not ablation.fresh and plan.base is None:
            finish(plan.new_network(NEW_NETWORK, seed), None, say)
        for label, stage in ablation.rows.items():
            config = plan.row(ablation, stage, seed)
            done = finish(config, plan.out / "bundles" / f"{config.out.name}.safetensors", say)
            assert done is not None
            finished[label, seed] = done
    trained = _evaluated(finished, plan, evaluation, say)
    found = compare(ablation, trained)
    about = {"steps": plan.steps, "seeds": seeds, "pictures": len(evaluation.cases)}
    files = write_results(ablation, name, found, evaluation.encoder, about, plan.out)
    rows = [row for one in trained for row in one.loops]
    files.append(write_page(evaluation.cases, rows, evaluation.encoder, plan.out))
    return text_of(ablation, found, evaluation.encoder, seeds), files


def _evaluated(
    finished: dict[tuple[str, int], Finished], plan: Plan, evaluation: Evaluation, say: Say
) -> list[Trained]:
    """The loops of every run: the same pictures and noise for all rows of a seed."""
    systems = {
        key: BundleSystem(
            f"{done.config.variant} seed {key[1]}",
            done.bundle,
            {**evaluation.settings, "frames": done.config.clip.frames},
            seed=key[1],
            device=evaluation.device,
        )
        for key, done in finished.items()
    }
    rows = evaluate(
        evaluation.cases,
        list(systems.values()),
        evaluation.encoder,
        plan.out,
        lambda row: say(f"{row.label}: {row.picture}: {row.figures.get('verdict', row.reason)}"),
    )
    return [
        Trained(label, seed, done.loss, [r for r in rows if r.system == systems[label, seed].name])
        for (label, seed), done in finished.items()
    ]
