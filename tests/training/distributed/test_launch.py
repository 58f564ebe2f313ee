"""Processes, sharding, compilation and optional packages do not change the result of a run."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from runs import SMOOTH, assert_close_runs, train_in_a_child
from torch import nn
from torch.utils._pytree import tree_leaves

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import OptimizerConfig, RunConfig
from loopanimate_training.loop import train
from loopanimate_training.optimizer import make_optimizer
from loopanimate_training.storage.checkpoint import (
    Checkpoint,
    checkpoints,
    load_checkpoint,
    load_latest,
)
from loopanimate_training.testing import toy_run, two_processes, with_settings

pytestmark = pytest.mark.numeric

LAUNCH = Path(__file__).parents[3] / "training" / "launch"
Toy = Callable[..., RunConfig]


@pytest.fixture
def toy(tmp_path: Path, toy_bundle_path: Path) -> Toy:
    def make(name: str = "run", **settings: Any) -> RunConfig:
        more = {"steps": 3, "save.every_steps": 100, "batch.accumulate": 2, **settings}
        return toy_run(tmp_path, toy_bundle_path, out=tmp_path / name, **more)

    return make


def latest(config: RunConfig) -> Checkpoint:
    found = load_latest(config.out)
    assert found is not None
    return found


@pytest.mark.parametrize("more", [{}, {"distil.skip": 250}], ids=["diffusion", "distillation"])
def test_fsdp_takes_the_same_steps_and_saves_whole_weights(
    toy: Toy, free_port: int, more: dict[str, Any]
) -> None:
    settings = {**SMOOTH, **more}
    alone, sharded = toy("alone", steps=4, **settings), toy("sharded", **settings)
    for steps in (2, 3):  # the second run resumes
        run = with_settings(sharded, steps=steps)
        ranks = two_processes(run, free_port, ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
        assert [life.end() for life in ranks] == [0, 0]
    one_more = with_settings(sharded, steps=4)
    train_in_a_child(one_more)  # and continues on one process
    train_in_a_child(alone)
    assert_close_runs(one_more, alone)
    assert latest(alone).optimizer["param_groups"] == latest(one_more).optimizer["param_groups"]


def test_a_run_goes_on_with_another_number_of_processes(toy: Toy, free_port: int) -> None:
    alone, moved = toy("alone", steps=4, **SMOOTH), toy("moved", **SMOOTH)
    train_in_a_child(with_settings(moved, steps=1))
    shared = with_settings(moved, steps=3)
    assert [life.end() for life in two_processes(shared, free_port)] == [0, 0]
    one_more = with_settings(moved, steps=4)
    train_in_a_child(one_more)
    train_in_a_child(alone)
    assert_close_runs(one_more, alone)


@pytest.mark.parametrize("name", ["8_gpus", "multi_node", "fsdp2"])
def test_launch_files_are_read_by_accelerate(name: str) -> None:
    loaded: Any = load_config_from_file(str(LAUNCH / f"{name}.yaml"))
    assert loaded.num_processes % 8 == 0 and loaded.mixed_precision == "no"
    if name == "fsdp2":
        assert loaded.distributed_type.value == "FSDP" and loaded.fsdp_config["fsdp_version"] == 2


def test_compilation_changes_nothing(toy: Toy) -> None:
    settings = {"steps": 2, **SMOOTH}
    plain, compiled = (
        toy("plain", **settings),
        toy("compiled", **settings, **{"model.compile": "eager"}),
    )
    train(plain)
    train(compiled)
    assert_close_runs(compiled, plain)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_eight_bit_adamw_learns_and_resumes(toy: Toy) -> None:
    # Train all weights: bitsandbytes keeps 8-bit states only for large ones.
    settings = {"optimizer.kind": "adamw8bit", "model.train": "[all]"}
    whole, parts = toy("whole", steps=4, **settings), toy("parts", steps=4, **settings)
    train(whole)
    for steps in (2, 4):
        train(with_settings(parts, steps=steps))
    ours, theirs = latest(whole), latest(parts)
    assert all(torch.equal(ours.weights[name], theirs.weights[name]) for name in ours.weights)
    states = [leaf for leaf in tree_leaves(theirs.optimizer) if isinstance(leaf, torch.Tensor)]
    assert any(state.dtype == torch.uint8 for state in states)
    first = load_checkpoint(checkpoints(parts.out)[0]).weights
    assert any(not torch.equal(first[name], theirs.weights[name]) for name in first)


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(LoopAnimateError, match="pip install bitsandbytes"):
        make_optimizer(
            {"unet.a": nn.Parameter(torch.zeros(1))}, OptimizerConfig(lr=1, kind="adamw8bit")
        )
