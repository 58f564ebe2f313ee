"""`loopanimate info`: what a model file contains."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..parsing import plain_text
from .options import Commands, add_command

if TYPE_CHECKING:
    from ..bundle import BundleInfo
    from ..models import LoopUNetConfig

HIDDEN_METADATA = {"format", "modelspec.thumbnail"}
CONDITIONING_LINES = {
    "loop": "the still at both ends, and the object's mask (LoopAnimate)",
    "pia": "the still at every frame, and each frame's affinity to it (PIA)",
}


def add_parser(commands: Commands) -> None:
    """Add the command `info`."""
    parser = add_command(commands, "info", "show what a model file contains", run)
    parser.add_argument(
        "bundle", metavar="BUNDLE", nargs="?", help="the model (default: the bundled mini)"
    )
    parser.add_argument(
        "--table",
        action="store_true",
        help="also print the parameters of each part and training stage, next to the full-size model's",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print what the header of a bundle or of a delta says; no weights are read."""
    from ..bundle import bundle_info, find_bundle, mini_bundle_path
    from ..bundle.delta import is_delta

    path = find_bundle(arguments.bundle) if arguments.bundle else mini_bundle_path()
    if is_delta(path):
        print("\n".join(_delta_lines(str(path), arguments.json)))
        return 0
    found = bundle_info(path)
    if arguments.json:
        print(json.dumps(_info_values(found, arguments.table), indent=2, ensure_ascii=False))
        return 0
    print("\n".join(_info_lines(found)))
    if arguments.table:
        print("\n" + "\n".join(_table_lines(found.config.unet)))
    return 0


def _info_values(found: BundleInfo, table: bool) -> dict[str, object]:
    values = dataclasses.asdict(found) | {"path": str(found.path), "config": found.config.to_dict()}
    if table:
        from ..models.parts import parameter_table

        rows = parameter_table(found.config.unet)
        values["table"] = {row.name: row.parameters for row in rows}
    return values


def _info_lines(found: BundleInfo) -> list[str]:
    config, own = found.config, found.config.defaults
    down, middle, up = config.unet.routing
    return _aligned(
        {
            "file": f"{found.path} ({found.size_bytes / 1e6:.1f} MB, {found.dtype})",
            **{
                name.removeprefix("modelspec."): value
                for name, value in found.metadata.items()
                if name not in HIDDEN_METADATA
            },
            "picture": f"{', '.join(map(str, config.all_shapes))} pixels",
            "frames": "trained on " + ", ".join(map(str, config.frames)),
            "schedule": f"{config.schedule.beta_schedule}, {config.schedule.prediction_type}",
            "conditioning": CONDITIONING_LINES[config.conditioning],
            "reads": f"down blocks {down}, middle block {middle}, up blocks {up}",
            "defaults": f"{own.scheduler}, {own.steps} steps, guidance {own.guidance:g}, {own.frames}"
            f" frames at {own.fps:g} fps, start {own.start:g}, hold still {own.hold_still:g}",
            "fast": _fast_line(found),
            "parameters": ", ".join(
                f"{part} {count:,}" for part, count in found.parameters.items()
            ),
            **{f"provenance: {name}": str(value) for name, value in found.provenance.items()},
        }
    )


def _fast_line(found: BundleInfo) -> str:
    """What the preset `fast` does with this model."""
    from ..settings import PRESETS

    fast = found.config.defaults.fast
    if fast is None:
        return f"{PRESETS['fast']['steps']} steps of the same weights"
    return (
        f"{fast.scheduler}, {fast.steps} steps, guidance {fast.guidance:g}, with few-step weights"
        f" ({found.few_steps:,} parameters)"
    )


def _delta_lines(path: str, as_json: bool) -> list[str]:
    """What the header of a delta says."""
    from ..bundle.delta import delta_info

    found = delta_info(path)
    if as_json:
        values = dataclasses.asdict(found) | {
            "path": str(found.path),
            "config": found.config.to_dict(),
        }
        return [json.dumps(values, indent=2, ensure_ascii=False)]
    return _aligned(
        {
            "file": f"{found.path} ({found.size_bytes / 1e6:.1f} MB): a delta",
            "base": f"{found.base_name}, SHA-256 of its weights {found.base_sha256}",
            "replaces": f"{found.parameters:,} parameters in {found.tensors} tensors",
            "frames": "trained on " + ", ".join(map(str, found.config.frames)),
            "to use it": f"loopanimate convert apply {found.path.name} --base {found.base_name}"
            " -o model.safetensors",
        }
    )


def _aligned(rows: Mapping[str, str]) -> list[str]:
    shown = {plain_text(name, 60): plain_text(value, 2000) for name, value in rows.items()}
    width = max(map(len, shown))
    return [f"{name:{width}}  {value}" for name, value in shown.items()]


def _table_lines(config: LoopUNetConfig) -> list[str]:
    """Table 1 of the paper, for this model and for the paper's full-size model."""
    from ..models import LoopUNetConfig
    from ..models.parts import parameter_table

    lines = [
        f"{'':16}  {'this model':>23}  {'full size (the paper)':>25}",
        f"{'part':16}  {'parameters':>12} {'MB fp32':>10}  {'parameters':>14} {'MB fp32':>10}",
    ]
    for own, full in zip(parameter_table(config), parameter_table(LoopUNetConfig()), strict=True):
        lines.append(
            f"{own.name:16}  {own.parameters:12,} {own.megabytes:10.2f}"
            f"  {full.parameters:14,} {full.megabytes:10.2f}"
        )
    return lines
