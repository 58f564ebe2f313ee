"""A run goes on only as the same run: same settings, same data, same frozen weights, on all processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loopanimate_core.bundle import read_bundle, write_bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import RunConfig, require_same_run
from loopanimate_training.loop import train
from loopanimate_training.model.export import export_bundle
from loopanimate_training.storage.checkpoint import load_latest
from loopanimate_training.testing import RunProcess, with_settings

Toy = Callable[..., RunConfig]


def saved(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")


def test_steps_are_free_unless_the_rate_depends_on_them(toy: Toy) -> None:
    require_same_run(saved(toy(steps=5)), toy(steps=9))
    with pytest.raises(LoopAnimateError, match="steps = 5, not 9"):
        require_same_run(
            saved(toy(steps=5, **{"optimizer.schedule": "cosine"})),
            toy(steps=9, **{"optimizer.schedule": "cosine"}),
        )


def test_a_step_may_be_split_otherwise_but_holds_the_same_clips(toy: Toy) -> None:
    eight = saved(toy(**{"batch.size": 8, "batch.accumulate": 1}))
    require_same_run(eight, toy(**{"batch.size": 2, "batch.accumulate": 4}))
    with pytest.raises(LoopAnimateError, match=r"accumulate = 8, not 16"):
        require_same_run(eight, toy(**{"batch.size": 4, "batch.accumulate": 4}))


def test_other_data_is_another_run(toy: Toy, tmp_path: Path) -> None:
    config = toy(steps=2)
    train(config)
    captions = sorted(config.data.path.rglob("*.txt"))
    captions[0].write_text("something else")
    longer = with_settings(config, steps=3)
    with pytest.raises(LoopAnimateError, match="its clips or captions have changed since"):
        train(longer)
    assert train(longer, allow_change=True).step == 3


def test_other_frozen_weights_are_another_run_and_are_not_exported(
    toy: Toy, tmp_path: Path, toy_bundle_path: Path
) -> None:
    start = tmp_path / "start.safetensors"
    bundle = read_bundle(toy_bundle_path)
    write_bundle(start, bundle, torch.float32)
    config = toy(steps=2, **{"model.start": start, "model.train": "[temm]"})
    train(config)
    with torch.no_grad():  # a part that the run trains: the checkpoint has it
        for name, parameter in bundle.unet.named_parameters():
            if "motion_modules" in name:
                parameter.add_(1.0)
    write_bundle(start, bundle, torch.float32)
    train(with_settings(config, steps=3))
    export_bundle(config.out, tmp_path / "out.safetensors")
    with torch.no_grad():
        bundle.unet.conv_out.bias.add_(1.0)
    write_bundle(start, bundle, torch.float32)
    with pytest.raises(LoopAnimateError, match="weights that it does not train have changed"):
        train(with_settings(config, steps=4))
    with pytest.raises(LoopAnimateError, match=r"start\.safetensors has changed since"):
        export_bundle(config.out, tmp_path / "again.safetensors")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")
def test_processes_that_see_different_folders_say_so(toy: Toy, free_port: int) -> None:
    """The ordinary mistake on several machines: `out` is not shared."""
    one = toy(steps=2)
    train(one)
    runs = [with_settings(one, steps=4), with_settings(one, steps=4, out=str(one.out) + "-other")]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}
    ranks = [
        RunProcess(run, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank, run in enumerate(runs)
    ]
    for life in ranks:
        with pytest.raises(
            LoopAnimateError, match=r"do not agree on the newest checkpoint \(2, 0\)"
        ):
            life.end()
    found = load_latest(one.out)
    assert found is not None and found.step == 2
