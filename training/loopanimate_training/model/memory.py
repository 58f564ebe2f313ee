"""How much memory a training step needs, counted without running one.

The network is built and run forward and backward on tensors that have shapes but no storage; every allocation
that such a step would keep alive is counted. docs/training-memory.md lists what is counted and what is assumed.
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
from ..optimizer import STATE_BYTES
from .lora import add_adapters
from .precision import DTYPES
from .switches import use_memory_switches
from .weights import trained_in_unet

FLOAT32 = 4
TEXT_TOKENS, IMAGE_TOKENS = 77, 1
RESERVE_BYTES = 1.5e9  # assumed: CUDA context, workspaces of libraries, gaps between allocations


@dataclass(frozen=True)
class StepMemory:
    """What forward and backward keep alive, in bytes, without weights and their gradients.

    Attributes:
        saved: held when the backward pass begins.
        peak: the largest amount held at any time.
    """

    saved: int
    peak: int


@dataclass(frozen=True)
class RunMemory:
    """What a run holds on its GPU, in bytes.

    Attributes:
        weights: of the UNet, and of every other network that stays on the GPU.
        gradients, optimizer, average: of the trained parameters; the average is the EMA.
        step: activations and temporary tensors of the backward pass, at their peak.
        encoding: of the clips of the next steps at the same time; none with a filled cache.
        reserve: an allowance for what cannot be counted.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    step: int
    encoding: int = 0
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
    encoding: int = 0,
) -> RunMemory:
    """Add to a step what stays on the GPU all the time.

    Args:
        frozen: numbers of parameters of the frozen networks that stay on the GPU, in float32.
        trained_beside: number of parameters that train besides the UNet's (the text encoder's).
        encoding: peak of encoding clips while a step is taken, in bytes.
    """
    with FakeTensorMode():
        network = build_network(config, unet, config.clip.frames)
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad) + trained_beside
        weights = sum(p.nbytes for p in network.parameters())
    if config.distil is not None:
        weights *= 3  # the teacher and the averaged student
    return RunMemory(
        weights=weights + FLOAT32 * (trained_beside + sum(frozen)),
        gradients=FLOAT32 * trained,
        optimizer=STATE_BYTES[config.optimizer.kind] * trained,
        average=FLOAT32 * trained,
        step=step.peak,
        encoding=encoding,
    )


def build_network(config: RunConfig, unet: LoopUNetConfig, frames: int) -> LoopUNet:
    """The UNet of a run with random weights, its memory switches, and its untrained parameters frozen."""
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
    for parameter in trained_in_unet(network, model).values():
        parameter.requires_grad_(True)
    use_memory_switches(network, model, config.precision)
    return network


def network_inputs(config: RunConfig, unet: LoopUNetConfig, frames: int) -> tuple[Tensor, ...]:
    """Z_C, timesteps, image and text embeddings of one micro-batch, at the largest of the run's shapes."""
    clips, width = config.batch.size, unet.cross_attention_dim
    width_px, height_px = config.clip.largest_shape
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
    """Run forward and backward and count what they keep alive besides weights, gradients and inputs.

    Works on tensors with and without storage. Gradients are dropped as soon as they are complete.
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
    """Counts the bytes of all storages that operations have made and not yet freed."""

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
        weakref.finalize(storage, self._free, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _free(self, size: int) -> None:
        self.now -= size


class _GroupNorm32(nn.GroupNorm):
    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input.float(), self.num_groups, self.weight, self.bias, self.eps)


class _LayerNorm32(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input.float(), self.normalized_shape, self.weight, self.bias, self.eps)


class AutocastOps:
    """Layers as autocast runs them on CUDA, with norms in float32; autocast on CPUs does not do that."""

    Conv2d, Linear = nn.Conv2d, nn.Linear
    GroupNorm, LayerNorm = _GroupNorm32, _LayerNorm32


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None
