"""Which clip lengths and memory settings fit on which GPU."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loopanimate_core.bundle import bundle_info
from loopanimate_core.bundle.components import PARTS, build_on_meta, shapes_of
from loopanimate_core.bundle.tensorfile import count_parameters
from loopanimate_core.convert.sources import standard_settings
from loopanimate_core.models import LoopUNetConfig

from ..config import ModelConfig, RunConfig, parse
from ..data.loader import require_divisible
from .memory import RunMemory, StepMemory, run_memory, step_memory
from .sheet_memory import decoding_bytes, encoding_bytes, sheet_memory
from .start import find_checkpoint
from .switches import MEMORY_SWITCHES

CHECKPOINTING = {"precision": "bf16", "model.gradient_checkpointing": True}
# From the fastest to the smallest. The chunks are a quarter of the pixels of 64 x 64 latents.
LADDER: dict[str, dict[str, Any]] = {
    "float32": {"precision": "no"},
    "bf16": {"precision": "bf16"},
    "bf16, checkpointing": CHECKPOINTING,
    "bf16, checkpointing in chunks": {
        **CHECKPOINTING,
        "model.chunk_frames": 12,
        "model.chunk_pixels": 1024,
    },
}
# For GPUs on which none of these fits.
SMALLEST = {**CHECKPOINTING, "model.chunk_frames": 4, "model.chunk_pixels": 256}


@dataclass(frozen=True)
class Networks:
    """Sizes of the networks: the UNet's configuration, the number of parameters of each other network, and the
    settings of the VAE."""

    unet: LoopUNetConfig
    others: dict[str, int]
    source: str
    vae: Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """Memory as a linear function of the frames, through two counted clip lengths.

    Exact without chunks. With chunks the true curve is convex: a little lower in between.
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
    """Sizes from the run's start if that exists (only its header is read), else the paper's."""
    start = model.start
    if (earlier := find_checkpoint(start)) is not None:
        found = find_networks(parse(earlier.config).model)
    elif start.is_file():
        info = bundle_info(start)
        others = {part: size for part, size in info.parameters.items() if part != "unet"}
        found = Networks(info.config.unet, others, str(start), info.config.vae)
    else:
        others = {
            part: count_parameters(shapes_of(part, build_on_meta(part, standard_settings(part))))
            for part in PARTS
            if part != "unet"
        }
        title = "full size: Stable Diffusion 1.x"
        found = Networks(LoopUNetConfig(), others, title, standard_settings("vae"))
    if model.unet is not None:
        found = dataclasses.replace(found, unet=LoopUNetConfig.from_dict(model.unet))
    return found


def with_settings(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """The run with dotted settings replaced; memory switches that are not named are turned off."""
    off = {f"model.{name}": value for name, value in MEMORY_SWITCHES.items()}
    values: dict[str, Any] = {}
    model: dict[str, Any] = {}
    for name, value in (off | settings).items():
        section, _, key = name.rpartition(".")
        (model if section else values)[key] = value
    return config.model_copy(update={**values, "model": config.model.model_copy(update=model)})


def staying_networks(
    config: RunConfig, networks: Networks, cached: bool | None = None
) -> list[int]:
    """Numbers of parameters of the frozen networks that stay on the GPU: none with a filled cache."""
    if config.data.cache is not None if cached is None else cached:
        return []
    text = [] if config.model.train_text_encoder else ["text_encoder"]
    return [networks.others[name] for name in ("vae", "image_encoder", *text)]


def whole_memory(config: RunConfig, networks: Networks, step: StepMemory) -> RunMemory:
    """A step, and everything that is on the GPU with it."""
    beside = networks.others["text_encoder"] if config.model.train_text_encoder else 0
    encoding = 0
    if config.data.cache is None:  # clips are prepared in threads, while a step is taken
        encoding = config.data.threads * encoding_bytes(networks.vae, config.clip.largest_shape)
    staying = staying_networks(config, networks)
    return run_memory(config, networks.unet, staying, step, beside, encoding)


def whole_sheet(config: RunConfig, networks: Networks, memory: RunMemory, sampling: int) -> int:
    """Bytes on the GPU while a validation sheet is drawn.

    Args:
        sampling: peak of one prediction (`sampling_bytes`).
    """
    clip, away = config.clip, sum(staying_networks(config, networks, cached=False))
    decoding = decoding_bytes(networks.vae, clip.largest_shape, clip.frames - 1)
    encoders = away - sum(staying_networks(config, networks))
    return sheet_memory(memory, encoders, max(sampling, decoding))


def fit_line(config: RunConfig, networks: Networks, frames: tuple[int, int]) -> Line:
    """Count the memory of two clip lengths."""
    low, high = (step_memory(config, networks.unet, count) for count in frames)
    return Line(frames, (low, high))


def most_frames(memory: RunMemory, line: Line, gpu_bytes: float) -> int:
    """The longest clip F = 2f-1 of a run that fits on a GPU; 0 when not even three frames do."""
    free = gpu_bytes - (memory.total - memory.step)
    slope = line.step_at(1001).peak - line.step_at(1).peak
    frames = math.floor(1 + (free - line.step_at(1).peak) / (slope / 1000))
    frames -= 1 - frames % 2
    return frames if frames >= 3 else 0


def on_one_gpu(config: RunConfig, processes: int) -> RunConfig:
    """The run as each of its processes sees it, with a GPU each.

    Raises:
        LoopAnimateError: `batch.size` is not divisible by their number.
    """
    require_divisible(config.batch, processes)
    batch = config.batch.model_copy(update={"size": config.batch.size // processes})
    return config.model_copy(update={"batch": batch})
