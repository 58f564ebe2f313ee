"""Whole runs at toy size, compared by what is smooth in them."""

from __future__ import annotations

import math
from typing import Any

import torch
from closeness import assert_close_gradients, gradient_tolerance
from torch import Tensor

from loopanimate_training.config import RunConfig
from loopanimate_training.model.start import open_start
from loopanimate_training.model.weights import trained_parameters
from loopanimate_training.run.log import read_log
from loopanimate_training.storage.checkpoint import Checkpoint, load_latest
from loopanimate_training.testing import RunProcess

SMOOTH: dict[str, Any] = {"optimizer.eps": 1.0, "optimizer.lr": 0.1}
"""Settings of a run whose weights may be compared with those of another run.

Adam divides a gradient by its own size. With the usual eps a gradient that is zero but for rounding
becomes a whole step, of a sign that is chance. With an eps of 1 a step is proportional to its gradient.
"""


def train_in_a_child(config: RunConfig) -> None:
    """Take the run's steps in a process of its own, with the settings that `two_processes` have."""
    assert RunProcess(config).end() == 0


def assert_close_runs(actual: RunConfig, expected: RunConfig) -> None:
    """Two runs (under `SMOOTH`) took the same steps: the same losses and gradients.

    The first moments of the optimiser are a mean of the gradients; the weights and their average are
    compared by how far they have moved.
    """
    limit = gradient_tolerance(torch.float32)
    for config in (actual, expected):
        assert config.optimizer.eps >= 1, "weights are not comparable; see SMOOTH"
    rows, others = (read_log(config.out / "log.jsonl") for config in (actual, expected))
    assert [row["step"] for row in rows] == [row["step"] for row in others] != []
    for row, other in zip(rows, others, strict=True):
        for name in ("loss", "mean_loss", "grad_norm", "lr"):
            assert math.isclose(row[name], other[name], rel_tol=limit), (name, row, other)

    a, b = load_latest(actual.out), load_latest(expected.out)
    assert a is not None and b is not None and a.step == b.step
    assert_close_gradients(moments(a), moments(b))
    parameters = trained_parameters(open_start(expected.model, expected.seed), expected.model)
    start = {name: parameter.detach() for name, parameter in parameters.items()}
    for ours, theirs in ((a.weights, b.weights), (a.average, b.average)):
        assert ours.keys() == theirs.keys()
        moved = [{n: w[n].float() - start[n].float() for n in start} for w in (ours, theirs)]
        assert_close_gradients(*moved)


def moments(checkpoint: Checkpoint) -> dict[Any, Tensor]:
    """The optimiser's mean gradient of every parameter."""
    return {name: state["exp_avg"] for name, state in checkpoint.optimizer["state"].items()}
