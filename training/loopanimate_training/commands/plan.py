"""`loopanimate-train plan`: what a run will hold in memory, for several clip lengths and cards, before it starts."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopanimate_core.bundle.components import PARTS, build_on_meta, shapes_of
from loopanimate_core.bundle.tensorfile import count_parameters
from loopanimate_core.convert.sources import standard_settings
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNetConfig

from ..config import ModelConfig, RunConfig
from ..model.memory import RunMemory, StepMemory, run_memory, step_memory

if TYPE_CHECKING:
    import torch

CARDS_GB = (12, 16, 24, 40, 48, 80)
# What a plan may leave open: nothing of it changes the memory.
PLACEHOLDERS: dict[str, Any] = {
    "out": "run",
    "model": {"start": "full-size"},
    "data": {"source": "videos", "path": "clips", "cache": "cache"},
}
# From the fastest to the smallest; a quarter of the pixels of 64 x 64 latents at a time.
LADDER: dict[str, dict[str, Any]] = {
    "float32": {"precision": "no"},
    "bf16": {"precision": "bf16"},
    "bf16, checkpointing": {"precision": "bf16", "model.gradient_checkpointing": True},
    "bf16, checkpointing in chunks": {
        "precision": "bf16", "model.gradient_checkpointing": True, "model.chunk_frames": 12,
        "model.chunk_pixels": 1024,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Networks:
    """The sizes a plan is made for: the UNet's, and how many parameters the other networks have."""

    unet: LoopUNetConfig
    others: dict[str, int]
    source: str


@dataclass(frozen=True)
class Line:
    """Memory as a linear function of the frames, through two counted clip lengths.

    Exact without chunks. With chunks the truth is convex: a little less in between.
    """

    frames: tuple[int, int]
    steps: tuple[StepMemory, StepMemory]

    def step_at(self, frames: int) -> StepMemory:
        (a, b), (low, high) = self.frames, self.steps
        share = (frames - a) / (b - a)
        return StepMemory(
            round(low.saved + share * (high.saved - low.saved)),
            round(low.peak + share * (high.peak - low.peak)),
        )


def find_networks(model: ModelConfig) -> Networks:
    """Sizes from the run's start if it is there (only its header is read), else the paper's."""
    from loopanimate_core.bundle import bundle_info

    from ..config import parse
    from ..model.start import find_checkpoint

    start = model.start
    if (earlier := find_checkpoint(start)) is not None:
        found = find_networks(parse(earlier.config).model)
    elif start.is_file():
        info = bundle_info(start)
        others = {part: size for part, size in info.parameters.items() if part != "unet"}
        found = Networks(info.config.unet, others, str(start))
    else:
        others = {
            part: count_parameters(shapes_of(part, build_on_meta(part, standard_settings(part))))
            for part in PARTS
            if part != "unet"
        }
        found = Networks(LoopUNetConfig(), others, "full size: Stable Diffusion 1.x")
    if model.unet is not None:
        found = dataclasses.replace(found, unet=LoopUNetConfig.from_dict(model.unet))
    return found


def with_settings(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """The run with dotted settings replaced; memory settings that are not named are off."""
    off: dict[str, Any] = {
        "model.gradient_checkpointing": False, "model.chunk_frames": None, "model.chunk_pixels": None,
    }  # fmt: skip
    values: dict[str, Any] = {}
    model: dict[str, Any] = {}
    for name, value in (off | settings).items():
        section, _, key = name.rpartition(".")
        (model if section else values)[key] = value
    return config.model_copy(update={**values, "model": config.model.model_copy(update=model)})


def staying_networks(config: RunConfig, networks: Networks) -> list[int]:
    """Parameters of the frozen networks that stay on the card: none with a cache."""
    if config.data.cache is not None:
        return []
    text = [] if config.model.train_text_encoder else ["text_encoder"]
    return [networks.others[name] for name in ("vae", "image_encoder", *text)]


def whole_memory(config: RunConfig, networks: Networks, step: StepMemory) -> RunMemory:
    """A step and everything that lies on the card beside it."""
    beside = networks.others["text_encoder"] if config.model.train_text_encoder else 0
    return run_memory(config, networks.unet, staying_networks(config, networks), step, beside)


def fit_line(config: RunConfig, networks: Networks, frames: tuple[int, int]) -> Line:
    """Count two clip lengths."""
    low, high = (step_memory(config, networks.unet, count) for count in frames)
    return Line(frames, (low, high))


def most_frames(memory: RunMemory, line: Line, card_bytes: float) -> int:
    """The longest clip F = 2f-1 of a run that fits in a card; 0 when not even three frames do."""
    free = card_bytes - (memory.total - memory.step)
    slope = line.step_at(1001).peak - line.step_at(1).peak
    frames = math.floor(1 + (free - line.step_at(1).peak) / (slope / 1000))
    frames -= 1 - frames % 2
    return frames if frames >= 3 else 0


def on_one_card(config: RunConfig, processes: int) -> RunConfig:
    """The run as each of its processes sees it, a card each.

    Raises:
        LoopAnimateError: `batch.size` does not divide by their number.
    """
    size = config.batch.size
    if processes < 1 or size % processes:
        raise LoopAnimateError(
            f"batch.size is {size}; it must divide by the number of processes ({processes})"
        )
    batch = config.batch.model_copy(update={"size": size // processes})
    return config.model_copy(update={"batch": batch})


def plan(config: RunConfig, frames: Sequence[int] = (), processes: int = 1) -> str:
    """The tables that `loopanimate-train plan` prints, for a card of `processes`.

    Raises:
        LoopAnimateError: a clip length below 3, or `batch.size` does not divide by the processes.
    """
    config = on_one_card(config, processes)
    if bad := [count for count in frames if count < 3]:
        raise LoopAnimateError(f"--frames has {bad[0]}; a clip has 3 frames or more")
    networks = find_networks(config.model)
    own = config.clip.frames
    shown = sorted({own, *(frames or (71, 141))})
    counted = (own, max(*shown, own + 2))
    clip = config.clip
    lines = [
        f"stage {config.stage}{'-' * bool(config.variant)}{config.variant}, {networks.source}, "
        f"{clip.width_px} x {clip.height_px} px, {config.batch.size} clip{'s' * (config.batch.size > 1)} "
        "at a time on a card, GB of 10^9 bytes",
        "",
        f"{'':<32}" + "".join(f"{f'{count} frames':>12}" for count in shown) + "   most frames in "
        + "".join(f"{f'{card} GB':>7}" for card in CARDS_GB),
    ]  # fmt: skip
    chosen: list[tuple[str, RunMemory]] = []
    for name, settings in LADDER.items():
        rung = with_settings(config, settings)
        line = fit_line(rung, networks, counted)
        memory = whole_memory(rung, networks, line.step_at(own))
        totals = [memory.total - memory.step + line.step_at(count).peak for count in shown]
        chosen.append((name, memory))
        lines.append(
            f"{name:<32}"
            + "".join(f"{total / 1e9:>12.1f}" for total in totals)
            + " " * 18
            + "".join(f"{most_frames(memory, line, card * 1e9) or '-':>7}" for card in CARDS_GB)
        )
    lines += ["", *_parts_table(own, chosen), "", *_advice(chosen)]
    return "\n".join(lines)


def _parts_table(frames: int, rows: Sequence[tuple[str, RunMemory]]) -> list[str]:
    fields = [field.name for field in dataclasses.fields(RunMemory)]
    titles = {"average": "EMA", "step": "activations"}
    head = "".join(f"{titles.get(field, field):>13}" for field in (*fields, "together"))
    lines = [f"{f'of {frames} frames':<32}{head}"]
    for name, memory in rows:
        values = [*dataclasses.astuple(memory), memory.total]
        lines.append(f"{name:<32}" + "".join(f"{value / 1e9:>13.2f}" for value in values))
    saving = (8 - 2) * rows[0][1].gradients / 4
    lines.append(f"optimizer.kind=adamw8bit takes {saving / 1e9:.2f} GB less")
    return lines


def _advice(rows: Sequence[tuple[str, RunMemory]]) -> list[str]:
    """The fastest settings for every card."""
    lines = []
    for card in CARDS_GB:
        fitting = [name for name, memory in rows if memory.total <= card * 1e9]
        settings = LADDER[fitting[0]] if fitting else {}
        how = " ".join(f"--set {key}={str(value).lower()}" for key, value in settings.items())
        lines.append(
            f"{card:>3} GB: " + (how if fitting else "does not fit; smaller pictures or model.lora")
        )
    return lines


def measure(config: RunConfig, frames: Sequence[int] = (), processes: int = 1) -> str:
    """Take two optimiser steps of a random network per clip length; print memory and time.

    On the GPU, or with `device: cpu` on the CPU, where memory is not measured.

    Raises:
        LoopAnimateError: there is no CUDA device, or `batch.size` does not divide by the processes.
    """
    import torch

    config = on_one_card(config, processes)
    device = torch.device("cpu" if config.device == "cpu" else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LoopAnimateError("--measure needs a CUDA device, and there is none here")
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
    """Bytes allocated and reserved at most (None: not on CUDA), and seconds of the second step."""
    import torch

    from ..distributed.launch import use_memory_settings
    from ..model.memory import build_network, network_inputs
    from ..model.optim import Ema, make_optimizer
    from ..model.precision import autocast, shrink_frozen

    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.empty_cache()
    plain = config.model_copy(update={"precision": "no"})  # norms are autocast by CUDA itself
    network = build_network(plain, unet, frames)
    use_memory_settings(network, config.model)
    shrink_frozen(network, config.precision)
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
