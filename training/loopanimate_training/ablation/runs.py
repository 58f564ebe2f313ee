"""The runs of an ablation: each is an ordinary run of the trainer that resumes, and gives a bundle and a loss."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopanimate_core.bundle import bundle_info, mini_bundle_path
from loopanimate_core.evaluate.store import write_json

from ..config import RunConfig, require_same_run, resolve
from ..loop import train
from ..model.export import export_bundle
from ..setup import open_run
from ..storage.checkpoint import load_latest
from .tables import NEW_NETWORK, SCALES, Ablation, Scale

RECIPES = Path(__file__).parent.parent / "recipes"
RESULT = "ablation.json"  # in the run's folder, when it is finished


@dataclass(frozen=True)
class Plan:
    """What the command line says about the runs.

    Attributes:
        out: folder of runs, bundles and tables.
        steps: of every run.
        data: settings that name the clips.
        overrides: further settings of every run, as `section.name=value`.
        start: the bundle whose encoders, VAE and sizes new networks have; None for the bundled mini.
        base: what the rows of stage 3 continue; None trains it.
        scale: has settings of all runs, which `overrides` may replace.
    """

    out: Path
    steps: int
    data: dict[str, Any]
    overrides: Sequence[str] = ()
    start: Path | None = None
    base: Path | None = None
    scale: Scale = SCALES["mini"]

    def run(self, stage: str, seed: int, recipe: str, changes: dict[str, Any]) -> RunConfig:
        """The settings of one run."""
        own = {"out": self.out / "runs" / f"{stage}-seed{seed}", "seed": seed, "steps": self.steps}
        own["data.cache"] = self.out / "latents"  # rows and seeds see the same clips
        words = [f"{name}={_yaml(value)}" for name, value in {**own, **changes}.items()]
        defaults = {"data": self.data}
        return resolve(stage, RECIPES / recipe, [*words, *self.overrides], defaults)

    def new_network(self, stage: str, seed: int) -> RunConfig:
        """A run that trains a new network of the start's sizes, so that no row has a head start."""
        start = self.start or mini_bundle_path()
        sizes = bundle_info(start).config.unet.to_dict()
        changes = {"model.start": start, "model.unet": sizes, "model.train": ["all"]}
        changes |= self.scale.new
        return self.run(stage, seed, "ablation_new.yaml", changes)

    def row(self, ablation: Ablation, stage: str, seed: int) -> RunConfig:
        """The run of a row; `finish` the one before it first."""
        if ablation.fresh:
            return self.new_network(stage, seed)
        base = self.base or self.new_network(NEW_NETWORK, seed).out
        return self.run(stage, seed, ablation.recipe, {"model.start": base, **self.scale.stage3})


def _yaml(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


@dataclass(frozen=True)
class Finished:
    """A run that is done.

    Attributes:
        bundle: its averaged weights.
        loss: of them on held-out clips, at fixed noise and timesteps.
    """

    config: RunConfig
    bundle: Path
    loss: float


class Stopped(Exception):
    """A run was asked to stop.

    Attributes:
        exit_code: of the process.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def finish(config: RunConfig, bundle: Path | None, say: Callable[[str], None]) -> Finished | None:
    """Train a run to its end, measure and export it, as far as this is not done yet.

    Args:
        bundle: the file to export to; None for a run that is only a start.

    Raises:
        LoopAnimateError: the folder holds another run, or it cannot be trained.
        Stopped: a signal or a request ended it.
    """
    name, saved = config.out.name, load_latest(config.out)
    if saved is not None:
        require_same_run(saved.config, config)
    if saved is None or saved.step < config.steps:
        say(f"{name}: training, {config.steps:,} steps")
        outcome = train(config)
        if outcome.exit_code:
            raise Stopped(outcome.exit_code)
    if bundle is None:
        return None
    found = _result(config)
    if found is None or not bundle.is_file():
        say(f"{name}: loss on held-out clips, and export")
        bundle.parent.mkdir(parents=True, exist_ok=True)
        export_bundle(config.out, bundle)
        found = held_out_loss(config)
        write_json(config.out / RESULT, {"step": config.steps, "loss": found})
    return Finished(config, bundle, found)


def _result(config: RunConfig) -> float | None:
    """The loss that was measured at the run's last step."""
    try:
        found = json.loads((config.out / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found["loss"] if found.get("step") == config.steps else None


def held_out_loss(config: RunConfig) -> float:
    """The loss of a finished run's averaged weights on `validation.loss_clips` clips that it never saw."""
    from ..distributed.launch import make_accelerator

    run = open_run(config, make_accelerator(config), allow_change=False)
    assert run.validation_loss is not None, "the recipes of ablations measure it"
    model = run.accelerator.unwrap_model(run.model, keep_torch_compile=True)
    return run.validation_loss.measure(model, run.state.ema, run.accelerator)
