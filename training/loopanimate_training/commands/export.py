"""`loopanimate-train export`: a checkpoint's averaged weights as a bundle, a delta or a LoRA."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import Commands


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "export", help="write a checkpoint's averaged weights as a bundle, a delta or a LoRA"
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "checkpoint", type=Path, help="a checkpoint, or a run's folder for its newest one"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the file to write")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--delta-of", type=Path, metavar="BUNDLE", help="write only what changed since this bundle"
    )
    kind.add_argument(
        "--lora", action="store_true", help="write the adapters of a run with model.lora"
    )
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")


def run(options: argparse.Namespace) -> int:
    import torch

    from ..model.export import export_bundle, export_delta, export_lora

    dtype = getattr(torch, options.dtype)
    if options.lora:
        step = export_lora(options.checkpoint, options.output, dtype)
    elif options.delta_of is not None:
        step = export_delta(options.checkpoint, options.output, options.delta_of, dtype)
    else:
        step = export_bundle(options.checkpoint, options.output, dtype)
    print(f"{options.output}: step {step}")
    return 0
