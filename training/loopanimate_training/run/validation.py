"""Validation: loops drawn from the averaged weights, as a contact sheet, a video and measurements."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, distributed

from loopanimate_core.bundle import Bundle
from loopanimate_core.check import MIN_FRAMES, check_loop
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write
from loopanimate_core.picture.images import save_picture
from loopanimate_core.picture.sheet import contact_sheet
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_core.video import write_video

from ..config import RunConfig
from ..data.source import ClipSource
from ..distributed.launch import PATIENCE
from ..model.optim import Ema

COLUMNS = 8
# What a run goes on after, on all processes alike.
FAILURES = (LoopAnimateError, OSError, torch.cuda.OutOfMemoryError)


@dataclass(frozen=True)
class Drawn:
    """A loop as it travels to the first process: its row of `loops-*.json`, and pixels in uint8.

    Attributes:
        picture: `[H, W, 3]`, the still.
        frames: `[P, H, W, 3]`.
    """

    clip_id: int
    row: dict[str, object]
    fps: float
    picture: Tensor
    frames: Tensor


class SheetMaker:
    """Draws `sheet-00001000.png`: a row per clip, the still and then frames of the loop made of it.

    Beside it `loops-00001000.mp4` plays the loops side by side, and `loops-00001000.json` holds the loop
    check of each.
    """

    def __init__(self, config: RunConfig, bundle: Bundle, source: ClipSource) -> None:
        self.config, self.bundle, self.source = config, bundle, source
        self._group: Any = None

    def draw(self, ema: Ema, step: int, accelerator: Accelerator) -> None:
        """Sample every validation clip's first frame with its caption and save what came of it.

        Each process draws its share, so all must call it; the first one saves.

        Raises:
            LoopAnimateError: a loop could not be drawn, here or (on the first process) elsewhere.
        """
        rank, world = accelerator.process_index, accelerator.num_processes
        drawn: list[Drawn] = []
        failure: Exception | None = None
        try:
            with averaged_weights(ema):
                drawn = self.draw_share(rank, world)
        except FAILURES as error:
            failure = error.with_traceback(None)  # whose frames would hold on to what did not fit
        all_drawn = self._gather(str(failure) if failure else drawn, accelerator)
        if failure is not None:
            raise failure
        if all_drawn is not None:
            self._save(in_order(all_drawn), step)

    def draw_share(self, rank: int, world: int) -> list[Drawn]:
        """Every `world`-th validation clip from number `rank` on."""
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
        count = min(sheets.clips, len(self.source))
        return [self._draw(pipeline, clip_id) for clip_id in range(rank, count, world)]

    def _draw(self, pipeline: LoopAnimatePipeline, clip_id: int) -> Drawn:
        frames, masks = self.source.read(clip_id, [0])
        mask = "none"
        if masks is not None and self.config.clip.mask == "object":
            mask = torch.from_numpy(masks[0]).float()
        prompt = self.source.caption(clip_id)
        loop = pipeline(torch.from_numpy(frames[0]).float() / 255, prompt, mask=mask, seed=clip_id)
        row: dict[str, object] = {"prompt": prompt, "seed": clip_id}
        if len(loop.frames) >= MIN_FRAMES:
            row |= check_loop(loop.frames, fps=loop.fps, reference=loop.picture).to_dict()
        return Drawn(clip_id, row, loop.fps, _to_bytes(loop.picture), _to_bytes(loop.frames))

    def _gather(
        self, mine: list[Drawn] | str, accelerator: Accelerator
    ) -> list[list[Drawn] | str] | None:
        """What each process has drawn, or why it has not; None on all but the first."""
        world = accelerator.num_processes
        if world == 1:
            return [mine]
        if self._group is None:
            # Of their own on the CPU: no room for the frames of all is needed on a card, and it is no
            # NCCL operation that waits for the slowest.
            self._group = distributed.new_group(backend="gloo", timeout=PATIENCE)
        everyones: list[Any] | None = [None] * world if accelerator.is_main_process else None
        distributed.gather_object(mine, everyones, dst=0, group=self._group)
        return everyones

    def _save(self, drawn: list[Drawn], step: int) -> None:
        shown = torch.linspace(0, len(drawn[0].frames) - 1, COLUMNS).round().long()
        rows = [torch.cat([loop.picture[None], loop.frames[shown]]) for loop in drawn]
        sheet = contact_sheet(torch.cat(rows).float() / 255, columns=COLUMNS + 1)
        save_picture(sheet, self.config.out / f"sheet-{step:08d}.png")
        content = {"step": step, "loops": [loop.row for loop in drawn]}
        with atomic_write(self.config.out / f"loops-{step:08d}.json") as partial:
            partial.write_text(json.dumps(content, indent=1), "utf-8")
        side_by_side = torch.cat([loop.frames for loop in drawn], dim=2).float() / 255
        path = self.config.out / f"loops-{step:08d}.mp4"
        write_video(side_by_side, path, fps=drawn[0].fps, repeats=1)


def in_order(shares: Sequence[list[Drawn] | str]) -> list[Drawn]:
    """The loops of all processes by the numbers of their clips.

    Raises:
        LoopAnimateError: a process could not draw its share.
    """
    loops: list[Drawn] = []
    for rank, share in enumerate(shares):
        if isinstance(share, str):
            raise LoopAnimateError(f"process {rank}: {share}")
        loops += share
    return sorted(loops, key=lambda loop: loop.clip_id)


def _to_bytes(pixels: Tensor) -> Tensor:
    return (pixels.detach().float().clamp(0, 1) * 255).round().byte().cpu()


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
