"""`loopanimate info` and `loopanimate check`: what is in a model, and whether a loop closes."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .outputs import require_writable

if TYPE_CHECKING:
    from ..bundle import BundleInfo
    from ..check import LoopReport
    from ..models import LoopUNetConfig

EXIT_NO_LOOP = 1
HIDDEN_METADATA = {"format", "modelspec.thumbnail"}


def info(arguments: argparse.Namespace) -> int:
    """Print what a bundle's header says; no weights are read."""
    from ..bundle import bundle_info, mini_bundle_path
    from ..bundle.delta import is_delta

    if arguments.bundle is not None and is_delta(arguments.bundle):
        print("\n".join(_delta_lines(arguments.bundle, arguments.json)))
        return 0
    found = bundle_info(arguments.bundle or mini_bundle_path())
    if arguments.json:
        print(json.dumps(_info_values(found, arguments.table), indent=2, ensure_ascii=False))
        return 0
    print("\n".join(_info_lines(found)))
    if arguments.table:
        print("\n" + "\n".join(_table_lines(found.config.unet)))
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Decode a file, print whether it loops, and return 1 when it does not."""
    chart = None if arguments.chart is None else Path(arguments.chart)
    if chart is not None:
        require_writable(chart, arguments.force)
    from ..check import check_file
    from ..picture.images import load_picture, save_picture

    reference = None if arguments.picture is None else load_picture(arguments.picture)
    report = check_file(arguments.file, reference=reference)
    if chart is not None:
        from ..check.chart import seam_chart

        save_picture(seam_chart(report), chart)
    if arguments.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print("\n".join([report.summary, *_report_lines(report)]))
    return 0 if report.passed else EXIT_NO_LOOP


def _report_lines(report: LoopReport) -> list[str]:
    """The figures under the verdict; those that could not be measured are left out."""
    rows = (
        ("motion (median step, 0-255)", report.motion, 2),
        ("seam / median step", report.seam_ratio, 2),
        ("seam / steps around it", report.seam_jump, 2),
        ("the same at full size", report.seam_pop, 2),
        ("seam acceleration", report.seam_acceleration, 2),
        ("colour step at the seam", report.colour_step, 2),
        ("colour drift", report.colour_drift, 2),
        ("SSIM of neighbours (the paper's Motion)", report.ssim_adjacent, 3),
        ("MSE of the first frame to the picture", report.mse_f0, 1),
    )
    shown = [(name, f"{value:.{digits}f}") for name, value, digits in rows if value is not None]
    width = max(len(name) for name, _ in shown)
    return [f"  {name:{width}}  {value}" for name, value in shown]


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
    rows = {
        "file": f"{found.path} ({found.size_bytes / 1e6:.1f} MB, {found.dtype})",
        **{
            name.removeprefix("modelspec."): value
            for name, value in found.metadata.items()
            if name not in HIDDEN_METADATA
        },
        "picture": f"{config.width_px} x {config.height_px} pixels",
        "frames": "trained on " + ", ".join(map(str, config.frames)),
        "schedule": f"{config.schedule.beta_schedule}, {config.schedule.prediction_type}",
        "reads": f"down blocks {down}, middle block {middle}, up blocks {up}",
        "defaults": f"{own.scheduler}, {own.steps} steps, guidance {own.guidance:g}, {own.frames}"
        f" frames at {own.fps:g} fps, start {own.start:g}, hold still {own.hold_still:g}",
        "parameters": ", ".join(f"{part} {count:,}" for part, count in found.parameters.items()),
        **{f"provenance: {name}": str(value) for name, value in found.provenance.items()},
    }
    width = max(map(len, rows))
    return [f"{name:{width}}  {value}" for name, value in rows.items()]


def _delta_lines(path: str, as_json: bool) -> list[str]:
    """What a delta's header says."""
    from ..bundle.delta import delta_info

    found = delta_info(path)
    if as_json:
        values = dataclasses.asdict(found) | {
            "path": str(found.path),
            "config": found.config.to_dict(),
        }
        return [json.dumps(values, indent=2, ensure_ascii=False)]
    rows = {
        "file": f"{found.path} ({found.size_bytes / 1e6:.1f} MB): a delta",
        "base": f"{found.base_name}, SHA-256 of its weights {found.base_sha256}",
        "replaces": f"{found.parameters:,} parameters in {found.tensors} tensors",
        "frames": "trained on " + ", ".join(map(str, found.config.frames)),
        "to use it": f"loopanimate convert apply {found.path.name} --base {found.base_name} -o model.safetensors",
    }
    width = max(map(len, rows))
    return [f"{name:{width}}  {value}" for name, value in rows.items()]


def _table_lines(config: LoopUNetConfig) -> list[str]:
    """Table 1 of the paper, for this model and for the full size that the paper counts."""
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
