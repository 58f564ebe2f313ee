"""Muon beside AdamW: its steps, and a run that resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from loopanimate_training.config import OptimizerConfig, RunConfig
from loopanimate_training.loop import train
from loopanimate_training.optimizer import is_hidden_matrix, make_optimizer, orthogonalised
from loopanimate_training.storage.checkpoint import load_latest
from loopanimate_training.testing import difference

MakeRun = Callable[..., RunConfig]


def test_orthogonalised_matrices_have_singular_values_near_one_and_the_same_directions() -> None:
    torch.manual_seed(0)
    matrices = [torch.randn(8, 20), torch.randn(20, 8) * 1e-4, torch.randn(6, 6) * 1e3]
    for matrix, result in zip(matrices, orthogonalised(matrices), strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        inside = left.T @ result @ right.T  # diagonal if the directions are the same
        assert inside.diagonal().min() > 0.6 and inside.diagonal().max() < 1.3
        assert (inside - inside.diagonal().diag()).abs().max() < 0.05


def test_matrices_are_computed_alone_or_together_alike() -> None:
    torch.manual_seed(1)
    matrices = [torch.randn(5, 9), torch.randn(9, 5), torch.randn(5, 9)]
    together = orthogonalised(matrices)
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(result, orthogonalised([matrix])[0], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(result, orthogonalised([matrix.T])[0].T, atol=1e-4, rtol=1e-3)


def test_muon_steps_hidden_matrices_and_adamw_the_rest() -> None:
    torch.manual_seed(2)
    shapes = {
        "unet.down.conv1.weight": (4, 6, 3, 3),
        "unet.mid.to_q.weight": (8, 8),
        "unet.conv_in.weight": (4, 9, 3, 3),
        "unet.norm.weight": (8,),
        "text_encoder.token_embedding.weight": (20, 8),
    }
    parameters = {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    assert [name for name, p in parameters.items() if is_hidden_matrix(name, p)] == list(shapes)[:2]
    optimizer = make_optimizer(parameters, OptimizerConfig(lr=0.1, kind="muon", weight_decay=0.0))
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for name, parameter in parameters.items():
        step_size = (parameter - before[name]).square().mean().sqrt()
        if is_hidden_matrix(name, parameter):  # 0.2 of the rate, as AdamW's steps are in practice
            assert 0.7 * 0.02 < step_size < 1.3 * 0.02, name
            continue
        torch.testing.assert_close(
            step_size, torch.tensor(0.1), rtol=1e-3, atol=0.0
        )  # AdamW's first


def test_a_muon_run_learns_and_resumes(make_run: MakeRun, tmp_path: Path) -> None:
    settings = {"optimizer.kind": "muon", "model.train": "[all]"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(make_run(out=whole, steps=4, **settings))
    for steps in (2, 4):
        train(make_run(out=parts, steps=steps, **settings))
    ours, theirs = load_latest(whole), load_latest(parts)
    assert ours is not None and theirs is not None
    assert difference(ours, theirs) is None
