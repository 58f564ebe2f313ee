"""Validation: loops drawn from the averaged weights, as a contact sheet, a video and measurements."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopanimate_core.bundle import Bundle
from loopanimate_core.check import MIN_FRAMES, check_loop
from loopanimate_core.files import atomic_write
from loopanimate_core.images import contact_sheet, save_picture
from loopanimate_core.pipeline import Loop, LoopAnimatePipeline
from loopanimate_core.video import write_video

from .config import RunConfig
from .optim import Ema
from .sources import ClipSource

COLUMNS = 8


class SheetMaker:
    """Draws `sheet-00001000.png`: a row per clip, the still and then frames of the loop made of it.

    Beside it `loops-00001000.mp4` plays the loops side by side, and `loops-00001000.json` holds the loop
    check of each.
    """

    def __init__(self, config: RunConfig, bundle: Bundle, source: ClipSource) -> None:
        self.config, self.bundle, self.source = config, bundle, source

    def draw(self, ema: Ema, step: int) -> None:
        """Sample every validation clip's first frame with its caption and save what came of it."""
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
        with averaged_weights(ema):
            drawn = [
                (self.source.caption(clip_id), self._sample(pipeline, clip_id))
                for clip_id in range(min(sheets.clips, len(self.source)))
            ]
        shown = torch.linspace(0, len(drawn[0][1].frames) - 1, COLUMNS).round().long()
        rows = [torch.cat([loop.picture[None], loop.frames[shown]]) for _, loop in drawn]
        sheet = contact_sheet(torch.cat(rows), columns=COLUMNS + 1)
        save_picture(sheet, self.config.out / f"sheet-{step:08d}.png")
        self._save_loops(drawn, step)

    def _sample(self, pipeline: LoopAnimatePipeline, clip_id: int) -> Loop:
        frames, masks = self.source.read(clip_id, [0])
        mask = "none"
        if masks is not None and self.config.clip.mask == "object":
            mask = torch.from_numpy(masks[0]).float()
        return pipeline(
            torch.from_numpy(frames[0]).float() / 255,
            self.source.caption(clip_id),
            mask=mask,
            seed=clip_id,
        )

    def _save_loops(self, drawn: list[tuple[str, Loop]], step: int) -> None:
        loops: list[dict[str, object]] = []
        for clip_id, (prompt, loop) in enumerate(drawn):
            row: dict[str, object] = {"prompt": prompt, "seed": clip_id}
            if len(loop.frames) >= MIN_FRAMES:
                row |= check_loop(loop.frames, fps=loop.fps, reference=loop.picture).to_dict()
            loops.append(row)
        with atomic_write(self.config.out / f"loops-{step:08d}.json") as partial:
            partial.write_text(json.dumps({"step": step, "loops": loops}, indent=1), "utf-8")
        side_by_side = torch.cat([loop.frames for _, loop in drawn], dim=2)
        path = self.config.out / f"loops-{step:08d}.mp4"
        write_video(side_by_side, path, fps=drawn[0][1].fps, repeats=1)


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
