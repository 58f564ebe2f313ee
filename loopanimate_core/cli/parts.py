"""`loopanimate convert`: a model file from public parts, and back into parts."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import LoopAnimateError
from .outputs import require_writable


def assemble(arguments: argparse.Namespace) -> int:
    """Build a bundle from diffusers folders, checkpoints and motion modules."""
    output = require_writable(Path(arguments.output), arguments.force)
    import torch

    from ..bundle import write_bundle
    from ..convert import assemble as convert
    from ..schedule import ScheduleConfig

    sources = ("unet", "motion", "vae", "text_encoder", "image_encoder")
    given = {name: getattr(arguments, name) for name in sources if getattr(arguments, name)}
    bundle = convert.assemble(
        convert.PartFiles(**{name: Path(path) for name, path in given.items()}),
        conv_in_init=arguments.conv_in,
        routing=_routing(arguments.routing),
        schedule=ScheduleConfig(arguments.beta_schedule) if arguments.beta_schedule else None,
        seed=arguments.seed,
    )
    write_bundle(
        output,
        bundle,
        getattr(torch, arguments.dtype),
        title=arguments.title,
        author=arguments.author,
        license=arguments.license,
    )
    print(output)
    return 0


def extract(arguments: argparse.Namespace) -> int:
    """Write a bundle's parts for other programs."""
    import torch

    from ..bundle import read_bundle
    from ..convert import assemble as convert

    folder = Path(arguments.output)
    if folder.exists() and not arguments.force and (not folder.is_dir() or any(folder.iterdir())):
        raise LoopAnimateError(
            f"{folder} exists already and is no empty folder; --force adds to it"
        )
    bundle = read_bundle(arguments.bundle)
    dtype = getattr(torch, arguments.dtype)
    for path in convert.extract(bundle, folder, arguments.layout, dtype=dtype):
        print(path)
    return 0


def apply(arguments: argparse.Namespace) -> int:
    """Put a delta onto the model it was made from."""
    output = require_writable(Path(arguments.output), arguments.force)
    from ..bundle.delta import apply_delta

    apply_delta(arguments.delta, arguments.base, output)
    print(output)
    return 0


def _routing(text: str) -> tuple[str, str, str]:
    names = text.split(",")
    if len(names) != 3:
        raise LoopAnimateError(
            f"--routing is {text!r}; it must be three names with commas, as in image,text,text"
        )
    return names[0], names[1], names[2]
