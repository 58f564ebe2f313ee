"""`loopanimate-train export`: a checkpoint's averaged weights as a bundle, a delta, a LoRA or few-step weights."""

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
    kind.add_argument(
        "--into",
        type=Path,
        metavar="BUNDLE",
        help="for a distillation (stage 4): the bundle that gets the few-step weights (default: the"
        " run's start)",
    )
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")


def run(options: argparse.Namespace) -> int:
    import torch

    from ..model.export import (
        export_bundle,
        export_delta,
        export_few_steps,
        export_lora,
        read_run,
    )

    dtype = getattr(torch, options.dtype)
    if options.lora:
        step = export_lora(options.checkpoint, options.output, dtype)
    elif options.delta_of is not None:
        step = export_delta(options.checkpoint, options.output, options.delta_of, dtype)
    elif options.into is not None or read_run(options.checkpoint)[1].distil is not None:
        step = export_few_steps(options.checkpoint, options.output, options.into, dtype)
    else:
        step = export_bundle(options.checkpoint, options.output, dtype)
    print(f"{options.output}: step {step}")
    return 0
