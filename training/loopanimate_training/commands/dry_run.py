"""`loopanimate-train --dry-run`: what a run would do, in words and tables."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml
from torch._subclasses.fake_tensor import FakeTensorMode

from loopanimate_core.models import LoopUNet
from loopanimate_core.models.parts import part_of

from .. import alss
from ..config import DataConfig, OptimizerConfig, RunConfig
from ..model.fitting import find_networks
from ..model.lora import is_adapter
from ..model.memory import build_network
from ..model.start import open_start
from ..model.weights import trained_parameters
from ..optimizer import lr_factor

MISSING = "(missing)"
# Settings that a run needs and its description does not.
PLACEHOLDERS: dict[str, Any] = {
    "out": MISSING,
    "model": {"start": MISSING},
    "data": {"source": "videos", "path": MISSING},
}


def describe_run(config: RunConfig) -> str:
    """The resolved settings, the trained parameters and the learning rates."""
    unet, trained = _networks(config)
    clip, optimizer = config.clip, config.optimizer
    paths = alss.count_paths(clip.f, clip.stride, clip.reverse_steps, clip.strict)
    way = f"out of {clip.span_frames}, {paths:,} backward paths"
    way = "of one round of a natural loop" if clip.loops else way
    total = sum(p.numel() for name, p in unet.named_parameters() if not is_adapter(name))
    down, middle, up = unet.config.routing
    lines = [
        yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        f"clips      {clip.frames} frames {way}, Z_M {clip.mask}",
        f"steps      {config.steps:,} of {config.batch.clips} clips",
        *mix_rows(config.data),
        f"reads      down blocks {down}, middle block {middle}, up blocks {up}",
        "",
        *schedule_rows(optimizer, config.steps),
        "",
        *parameter_rows(trained),
        f"{'whole UNet':<26}{total:>15,}{4 * total / 1e6:>12.2f} MB",
    ]
    return "\n".join(lines)


def mix_rows(data: DataConfig) -> list[str]:
    """The share of every data set of a mix; nothing if there is only one."""
    if not data.mix:
        return []
    total = sum(data.shares)
    shares = [f"{n / total:.1%} {one.path}" for one, n in zip(data.sets, data.shares, strict=True)]
    return [f"samples    {', '.join(shares)}"]


def _networks(config: RunConfig) -> tuple[LoopUNet, dict[str, int]]:
    """The UNet, and the sizes of all parameters that train; without a start, those of the full size."""
    if str(config.model.start) != MISSING:
        bundle = open_start(config.model, config.seed)
        trained = trained_parameters(bundle, config.model)
        return bundle.unet, {name: p.numel() for name, p in trained.items()}
    networks = find_networks(config.model)
    with FakeTensorMode():
        unet = build_network(config, networks.unet, config.clip.frames)
    sizes = {f"unet.{name}": p.numel() for name, p in unet.named_parameters() if p.requires_grad}
    if config.model.train_text_encoder:
        sizes["text_encoder"] = networks.others["text_encoder"]
    return unet, sizes


def schedule_rows(optimizer: OptimizerConfig, steps: int) -> list[str]:
    """Learning rate at the start, the end of the warm-up and every quarter of the run, with a bar."""
    quarters = {steps * quarter // 4 for quarter in range(1, 4)}
    chosen = sorted({0, min(optimizer.warmup_steps, steps - 1), *quarters, steps - 1})
    rows = [f"{'step':>10}  learning rate ({optimizer.schedule})"]
    for step in chosen:
        share = lr_factor(optimizer, step, steps)
        rows.append(f"{step:>10,}  {optimizer.lr * share:<9.3g}{'#' * round(40 * share)}")
    return rows


def parameter_rows(sizes: dict[str, int]) -> list[str]:
    """A table of trained parameters by part; megabytes of float32, as in Table 1 of the paper."""
    parts: Counter[str] = Counter()
    for name, size in sizes.items():
        parts[_part_label(name)] += size
    rows = [f"{'trained':<26}{'parameters':>15}{'float32':>15}"]
    rows += [f"  {part:<24}{n:>15,}{4 * n / 1e6:>12.2f} MB" for part, n in sorted(parts.items())]
    total = sum(parts.values())
    return [*rows, f"  {'total':<24}{total:>15,}{4 * total / 1e6:>12.2f} MB"]


def _part_label(name: str) -> str:
    module, _, rest = name.partition(".")
    if module != "unet":
        return module
    return f"{part_of(rest)}, adapters" if is_adapter(rest) else part_of(rest)
