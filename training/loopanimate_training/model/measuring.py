"""Memory and time of real training steps with a random network: `plan --measure`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNetConfig

from ..config import RunConfig
from ..optimizer import Ema, make_optimizer
from .fitting import find_networks, on_one_gpu
from .memory import build_network, network_inputs, run_memory, step_memory
from .precision import autocast
from .switches import use_memory_switches, use_speed_switches


def measure(config: RunConfig, frames: Sequence[int] = (), processes: int = 1) -> str:
    """Take two optimiser steps with a random network per clip length; returns a table of memory and time.

    Runs on the GPU, or with `device: cpu` on the CPU, where memory is not measured.

    Raises:
        LoopAnimateError: there is no CUDA device, or `batch.size` is not divisible by the processes.
    """
    config = on_one_gpu(config, processes)
    device = torch.device("cpu" if config.device == "cpu" else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LoopAnimateError("--measure needs a CUDA device, and none is available")
    networks = find_networks(config.model)
    rows = [
        torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        f"{'frames':>6}{'predicted GB':>14}{'measured GB':>13}{'reserved GB':>13}{'s/step':>8}",
    ]
    for count in sorted({config.clip.frames, *frames}):
        step = step_memory(config, networks.unet, count)
        predicted = run_memory(config, networks.unet, [], step)
        row = f"{count:>6}{(predicted.total - predicted.reserve) / 1e9:>14.2f}"
        try:
            found = _measure_step(config, networks.unet, count, device)
        except torch.cuda.OutOfMemoryError:
            rows.append(f"{row}   out of memory")
            break
        row += "".join(f"{'-' if size is None else f'{size / 1e9:.2f}':>13}" for size in found[:2])
        rows.append(f"{row}{found[2]:>8.2f}")
    return "\n".join(rows)


def _measure_step(
    config: RunConfig, unet: LoopUNetConfig, frames: int, device: torch.device
) -> tuple[int | None, int | None, float]:
    """Peak bytes allocated and reserved (None: not on CUDA), and seconds of the second step."""
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.empty_cache()
    plain = config.model_copy(update={"precision": "no"})  # norms are autocast by CUDA itself
    network = build_network(plain, unet, frames)
    use_memory_switches(network, config.model, config.precision)
    use_speed_switches(network, config.model)
    network.to(device)
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    optimizer, ema = make_optimizer(trained, config.optimizer), Ema(trained, 0.99)
    inputs = [tensor.to(device) for tensor in network_inputs(config, unet, frames)]
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for _ in range(2):
        if on_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        with autocast(config.precision, device):
            loss = network(*inputs).float().square().mean()
        loss.backward()
        optimizer.step()
        ema.update(0)
        optimizer.zero_grad(set_to_none=True)
    if not on_cuda:
        return None, None, time.perf_counter() - began
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), seconds
