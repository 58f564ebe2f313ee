"""How much memory a training step takes, worked out without taking it.

The network is built and run forward and backward on tensors that have shapes and no storage; what such a
step would keep alive is counted allocation by allocation. What is counted and what is assumed stands in
docs/training-memory.md.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loopanimate_core.models import LoopUNet, LoopUNetConfig
from loopanimate_core.picture import SIZE_MULTIPLE_PX

from ..config import RunConfig
from .lora import add_adapters
from .precision import DTYPES, shrink_frozen
from .start import chosen_parameters

FLOAT32 = 4
# Bytes of optimiser state per trained parameter: two moments.
MOMENTS = {"adamw": 2 * FLOAT32, "adamw8bit": 2}
TEXT_TOKENS, IMAGE_TOKENS = 77, 1
RESERVE_BYTES = 1.5e9  # assumed: the CUDA context, libraries' workspaces, gaps between allocations


@dataclass(frozen=True)
class StepMemory:
    """What forward and backward keep alive, in bytes; weights and their gradients are not in it.

    Attributes:
        saved: held when backward begins.
        peak: the most held at any time.
    """

    saved: int
    peak: int


@dataclass(frozen=True)
class RunMemory:
    """What a run holds on its card, in bytes.

    Attributes:
        weights: the UNet's, and of every other network that stays on the card.
        gradients, optimizer, average: of the trained parameters; the average is the EMA.
        step: activations and what backward works with, at their most.
        reserve: an allowance for what cannot be counted.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    step: int
    reserve: int = int(RESERVE_BYTES)

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))


def step_memory(config: RunConfig, unet: LoopUNetConfig, frames: int) -> StepMemory:
    """Count one forward and backward pass over `frames` frames, a micro-batch of `batch.size` clips."""
    with FakeTensorMode():
        network = build_network(config, unet, frames)
        return count_step(network, network_inputs(config, unet, frames), config.precision)


def run_memory(
    config: RunConfig,
    unet: LoopUNetConfig,
    frozen: Iterable[int],
    step: StepMemory,
    trained_beside: int = 0,
) -> RunMemory:
    """Add to a step what lies on the card all the time.

    Args:
        frozen: numbers of parameters of the frozen networks that stay on the card.
        trained_beside: parameters that are trained beside the UNet's, the text encoder's.
    """
    with FakeTensorMode():
        network = build_network(config, unet, config.clip.frames)
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad) + trained_beside
        weights = sum(p.nbytes for p in network.parameters())
    frozen_bytes = FLOAT32 if config.precision == "no" else 2
    return RunMemory(
        weights=weights + FLOAT32 * trained_beside + frozen_bytes * sum(frozen),
        gradients=FLOAT32 * trained,
        optimizer=MOMENTS[config.optimizer.kind] * trained,
        average=FLOAT32 * trained,
        step=step.peak,
    )


def build_network(config: RunConfig, unet: LoopUNetConfig, frames: int) -> LoopUNet:
    """The UNet of a run, random, with its parameters frozen or not and its memory settings."""
    model = config.model
    sizes = dataclasses.replace(
        unet,
        max_positions=max(unet.max_positions, frames + 1),
        routing=model.routing or unet.routing,
    )
    network = LoopUNet(sizes, ops=nn if config.precision == "no" else AutocastOps)
    if model.lora is not None:
        add_adapters(network, model.lora, config.seed)
    network.requires_grad_(False)
    for parameter in chosen_parameters(network, model).values():
        parameter.requires_grad_(True)
    shrink_frozen(network, config.precision)
    network.gradient_checkpointing = model.gradient_checkpointing
    network.chunk_frames, network.chunk_pixels = model.chunk_frames, model.chunk_pixels
    return network


def network_inputs(config: RunConfig, unet: LoopUNetConfig, frames: int) -> tuple[Tensor, ...]:
    """Z_C, timesteps, image and text embeddings of one micro-batch."""
    clips, width = config.batch.size, unet.cross_attention_dim
    height_px, width_px = config.clip.height_px, config.clip.width_px
    return (
        torch.randn(
            clips,
            unet.in_channels,
            frames,
            height_px // SIZE_MULTIPLE_PX,
            width_px // SIZE_MULTIPLE_PX,
        ),
        torch.zeros(clips, dtype=torch.long),
        torch.randn(clips, IMAGE_TOKENS, width),
        torch.randn(clips, TEXT_TOKENS, width),
    )


def count_step(network: LoopUNet, inputs: tuple[Tensor, ...], precision: str) -> StepMemory:
    """Run forward and backward and count what they keep alive beside weights, gradients and inputs.

    Works on tensors with and without storage. Gradients are dropped as soon as they are whole.
    """
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_drop_gradient)
    autocast = torch.autocast("cpu", DTYPES[precision]) if precision in DTYPES else nullcontext()
    with LiveBytes([*network.parameters(), *inputs]) as live:
        with autocast:
            prediction = network(*inputs)
            loss = prediction.float().square().mean()
        saved = live.now
        loss.backward()
    return StepMemory(saved, live.peak)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations make and have not yet let go of."""

    def __init__(self, ignored: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: Any = weakref.WeakSet(tensor.untyped_storage() for tensor in ignored)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known.add(storage)
        weakref.finalize(storage, self._let_go, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _let_go(self, size: int) -> None:
        self.now -= size


class _GroupNorm32(nn.GroupNorm):
    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input.float(), self.num_groups, self.weight, self.bias, self.eps)


class _LayerNorm32(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input.float(), self.normalized_shape, self.weight, self.bias, self.eps)


class AutocastOps:
    """Layers as autocast on CUDA runs them: norms in float32, which a CPU's autocast leaves out."""

    Conv2d, Linear = nn.Conv2d, nn.Linear
    GroupNorm, LayerNorm = _GroupNorm32, _LayerNorm32


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None
