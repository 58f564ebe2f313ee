"""Validation: loops drawn from the averaged weights, as one contact sheet per time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopanimate_core.bundle import Bundle
from loopanimate_core.images import contact_sheet, save_picture
from loopanimate_core.pipeline import LoopAnimatePipeline

from .config import RunConfig
from .optim import Ema
from .sources import ClipSource

COLUMNS = 8


class SheetMaker:
    """Draws `sheet-00001000.png`: a row per clip, the still and then frames of the loop made of it."""

    def __init__(self, config: RunConfig, bundle: Bundle, source: ClipSource) -> None:
        self.config, self.bundle, self.source = config, bundle, source

    def draw(self, ema: Ema, step: int) -> None:
        """Sample every validation clip's first frame with its caption and save the sheet."""
        sheets, clip = self.config.sheets, self.config.clip
        defaults = dataclasses.replace(
            self.bundle.config.defaults,
            steps=sheets.steps,
            guidance=sheets.guidance,
            frames=clip.frames,
        )
        bundle_config = dataclasses.replace(
            self.bundle.config, defaults=defaults, frames=(clip.frames,),
            height_px=clip.height_px, width_px=clip.width_px,
        )  # fmt: skip
        pipeline = LoopAnimatePipeline(dataclasses.replace(self.bundle, config=bundle_config))
        rows = []
        with averaged_weights(ema):
            for clip_id in range(min(sheets.clips, len(self.source))):
                frames, masks = self.source.read(clip_id, [0])
                mask = (
                    "none"
                    if clip.mask == "ones" or masks is None
                    else torch.from_numpy(masks[0]).float()
                )
                loop = pipeline(
                    torch.from_numpy(frames[0]).float() / 255,
                    self.source.caption(clip_id),
                    mask=mask,
                    seed=clip_id,
                )
                shown = torch.linspace(0, len(loop.frames) - 1, COLUMNS).round().long()
                rows.append(torch.cat([loop.picture[None], loop.frames[shown]]))
        save_picture(
            contact_sheet(torch.cat(rows), columns=COLUMNS + 1),
            self.config.out / f"sheet-{step:08d}.png",
        )


@contextmanager
def averaged_weights(ema: Ema) -> Iterator[None]:
    """Put the averaged weights in place of the trained ones for a while."""
    trained = {name: p.detach().clone() for name, p in ema.parameters.items()}
    try:
        for name, parameter in ema.parameters.items():
            parameter.data.copy_(ema.average[name])
        yield
    finally:
        for name, parameter in ema.parameters.items():
            parameter.data.copy_(trained[name])
