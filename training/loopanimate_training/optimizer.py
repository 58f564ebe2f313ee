"""Optimiser, learning rate and averaged weights (EMA)."""

from __future__ import annotations

import importlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from loopanimate_core.errors import LoopAnimateError

from .config import OptimizerConfig
from .distributed.fsdp import shard_like

TEXT_ENCODER = "text_encoder."
# Bytes of optimiser state per trained parameter: two moments, in float32 or 8 bits; Muon has one for a matrix.
STATE_BYTES = {"adamw": 2 * 4, "adamw8bit": 2 * 1, "muon": 4}


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """The optimiser over named parameters; the text encoder's learning rate is a share of the others'.

    Raises:
        LoopAnimateError: `kind` is adamw8bit, and bitsandbytes is not installed; or muon, and weights are sharded.
    """
    text = [p for name, p in parameters.items() if name.startswith(TEXT_ENCODER)]
    unet = [p for name, p in parameters.items() if not name.startswith(TEXT_ENCODER)]
    groups: list[dict[str, Any]] = [{"params": unet, "lr_share": 1.0}]
    if text:
        groups.append({"params": text, "lr_share": config.text_encoder_lr_share})
    settings: dict[str, Any] = {
        name: getattr(config, name) for name in ("lr", "betas", "eps", "weight_decay")
    }
    if config.kind == "adamw8bit":
        return _eight_bit_adamw()(groups, **settings)
    if config.kind == "muon":
        if any(isinstance(p, DTensor) for p in parameters.values()):
            raise LoopAnimateError(
                "optimizer.kind is muon, which needs whole matrices, but FSDP shards them; use adamw"
            )
        hidden = {id(p) for name, p in parameters.items() if is_hidden_matrix(name, p)}
        return Muon([part for group in groups for part in _split(group, hidden)], **settings)
    return torch.optim.AdamW(groups, fused=True, **settings)


def _eight_bit_adamw() -> type[torch.optim.Optimizer]:
    try:
        return importlib.import_module("bitsandbytes").optim.AdamW8bit
    except ImportError as error:
        raise LoopAnimateError(
            "optimizer.kind is adamw8bit, which needs the package bitsandbytes: pip install bitsandbytes,"
            " or use adamw"
        ) from error


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon handles a parameter: a matrix or kernel between hidden layers, no table and no first or last layer."""
    outer = ("conv_in.", "conv_out.", "embedding")
    return parameter.ndim >= 2 and not any(part in name for part in outer)


def _split(group: dict[str, Any], hidden: set[int]) -> Iterator[dict[str, Any]]:
    """A group as one for Muon and one for AdamW."""
    for is_hidden in (True, False):
        params = [p for p in group["params"] if (id(p) in hidden) == is_hidden]
        if params:
            yield {**group, "params": params, "orthogonal": is_hidden}


class Muon(torch.optim.AdamW):
    """Muon for the groups marked `orthogonal`, AdamW for the others.

    The momentum of a matrix is replaced by the nearest matrix with equal singular values (Jordan et al. 2024), so
    rare directions learn as fast as common ones; a convolution counts as a matrix [out, in x height x width]. Steps
    are scaled to the size of AdamW's (Liu et al. 2025), so the same learning rates and decays fit. `betas[0]` is the
    momentum.
    """

    def __init__(self, groups: list[dict[str, Any]], **settings: Any) -> None:
        super().__init__(groups, fused=True, **settings)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; the gradients of matrices are consumed."""
        assert closure is None
        for group in self.param_groups:
            if group["orthogonal"]:
                self._step_matrices(group)
        super().step()

    def _step_matrices(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        ahead = [self._ahead(p, group["betas"][0]).flatten(1) for p in parameters]
        for parameter, direction in zip(parameters, orthogonalised(ahead), strict=True):
            size = 0.2 * math.sqrt(max(direction.shape))  # the root mean square of an AdamW step
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction.view_as(parameter), alpha=-group["lr"] * size)
            parameter.grad = None  # AdamW, which comes next, passes over it

    def _ahead(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov's momentum, brought up to date."""
        state = self.state[parameter]
        if not state:
            # `step` is not used, but AdamW expects it when it loads a checkpoint.
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(parameter))
        gradient = cast(Tensor, parameter.grad)
        average = state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum)


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """About U·Vᵀ of each matrix U·S·Vᵀ, by five Newton-Schulz steps; the singular values end in 0.7 to 1.2.

    Matrices of equal shape, up to a transposition, are computed together.
    """
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        alike[tuple(sorted(matrix.shape))].append(i)
    found: dict[int, Tensor] = {}
    for rows in alike.values():
        wide = [
            matrices[i] if matrices[i].shape[0] <= matrices[i].shape[1] else matrices[i].mT
            for i in rows
        ]
        for i, result in zip(rows, _newton_schulz(torch.stack(wide)), strict=True):
            found[i] = result if matrices[i].shape == result.shape else result.mT
    return [found[i] for i in range(len(matrices))]


def _newton_schulz(x: Tensor) -> Tensor:
    """[n, r, c], r <= c: five steps of the quintic iteration of Jordan et al. 2024."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def set_learning_rate(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int, steps: int
) -> float:
    """Set and return the learning rate of `step` (from 0)."""
    rate = config.lr * lr_factor(config, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_share"]
    return rate


def lr_factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """The learning rate at `step` as a share of `lr`: linear warm-up, then constant, or linear or cosine to
    `final_lr_share`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    left = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.final_lr_share + (1 - config.final_lr_share) * left


def ema_decay(step: int, decay: float) -> float:
    """Decay at `step` (from 0): small at first, so that the initial weights soon lose their influence."""
    return min(decay, (1 + step) / (10 + step))


class Ema:
    """An exponential moving average of named parameters."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.parameters = dict(parameters)
        self.average = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after optimiser step `step` (from 0)."""
        weight = 1 - ema_decay(step, self.decay)
        for name, average in self.average.items():
            average.lerp_(self.parameters[name], weight)

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Overwrite the average in place with full tensors."""
        for name, tensor in average.items():
            self.average[name].copy_(shard_like(tensor, self.average[name]))
