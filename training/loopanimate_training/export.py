"""A checkpoint as a bundle: the start of its run, with the averaged weights of the parts it trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from loopanimate_core.bundle import write_bundle
from loopanimate_core.errors import LoopAnimateError

from .checkpoint import is_checkpoint, load_checkpoint, load_latest
from .config import parse
from .start import load_weights, open_start, trained_frames, with_run


def export_bundle(checkpoint: Path, target: Path, dtype: torch.dtype = torch.float16) -> int:
    """Write the bundle of a checkpoint, or of the newest whole one of a run's folder; returns its step.

    Raises:
        LoopAnimateError: no whole checkpoint is there, its start is gone, or the bundle cannot be written.
    """
    found = load_checkpoint(checkpoint) if is_checkpoint(checkpoint) else load_latest(checkpoint)
    if found is None:
        raise LoopAnimateError(f"{checkpoint} holds no whole checkpoint")
    config = parse(found.config)
    bundle = open_start(config.model, config.seed)
    load_weights(bundle, found.average)
    bundle.config = dataclasses.replace(
        bundle.config,
        frames=trained_frames(bundle, config),
        height_px=config.clip.height_px,
        width_px=config.clip.width_px,
        defaults=dataclasses.replace(bundle.config.defaults, frames=config.clip.frames),
    )
    bundle.provenance = with_run(bundle.provenance, found)
    write_bundle(target, bundle, dtype, title=config.title or None, license=config.license or None)
    return found.step
