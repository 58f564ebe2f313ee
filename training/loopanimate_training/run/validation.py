"""Validation: loops generated with the averaged weights, as a contact sheet, a video and measurements."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, distributed

from loopanimate_core.bundle import Bundle
from loopanimate_core.check import MIN_FRAMES, check_loop
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write
from loopanimate_core.picture.images import Picture, fit_picture, load_picture, save_picture
from loopanimate_core.picture.saliency import mask_preview
from loopanimate_core.picture.shapes import Shape, nearest_shape
from loopanimate_core.picture.sheet import contact_sheet
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_core.settings import FewSteps
from loopanimate_core.video import write_video

from ..config import RunConfig
from ..data.object_masks import ObjectFinder
from ..data.readers.rows import pictures_in
from ..data.source import ClipSource
from ..distributed.launch import TIMEOUT
from ..optimizer import Ema

COLUMNS = 8
# Errors after which a run continues; all processes must treat them alike.
FAILURES = (LoopAnimateError, OSError, torch.cuda.OutOfMemoryError)


@dataclass(frozen=True)
class GeneratedLoop:
    """A loop as it is sent to the first process: its row of `loops-*.json`, and its pixels in uint8.

    Attributes:
        number: its place on the sheet: that of the clip, or after all clips.
        picture: the still, `[H, W, 3]`.
        preview: the still with everything but the object dark, like `picture`; None if the whole picture counts.
        frames: `[P, H, W, 3]`.
    """

    number: int
    row: dict[str, object]
    fps: float
    picture: Tensor
    preview: Tensor | None
    frames: Tensor


class Validator:
    """Generates loops from validation clips.

    Each loop has its clip's shape. `sheet-00001000.png` has a row per clip: the still, its object if the run's
    mask channel shows it, then frames of its loop.
    `loops-00001000.mp4` plays the loops side by side, and `loops-00001000.json` holds the loop check of each.
    """

    def __init__(
        self,
        config: RunConfig,
        bundle: Bundle,
        source: ClipSource,
        finder: ObjectFinder | None = None,
    ) -> None:
        self.config, self.bundle, self.source = config, bundle, source
        self._finder = finder
        self._pictures = prompted_pictures(config.validation.pictures)
        self._group: Any = None

    def validate(self, ema: Ema, step: int, accelerator: Accelerator) -> None:
        """Generate a loop from every validation clip's first frame and caption, and save them.

        Each process generates its share, so all must call it; the first one saves.

        Raises:
            LoopAnimateError: a loop could not be generated, here or (on the first process) elsewhere.
        """
        rank, world = accelerator.process_index, accelerator.num_processes
        loops: list[GeneratedLoop] = []
        failure: Exception | None = None
        try:
            with averaged_weights(ema):
                loops = self.generate_share(rank, world)
        except FAILURES as error:
            failure = error.with_traceback(None)  # its frames would keep the large tensors alive
        shares = self._gather(str(failure) if failure else loops, accelerator)
        if failure is not None:
            raise failure
        if shares is not None:
            self._save(in_order(shares), step)

    def generate_share(self, rank: int, world: int) -> list[GeneratedLoop]:
        """The loops `rank`, `rank + world`, … of those of the validation clips, then of the pictures."""
        validation, clip = self.config.validation, self.config.clip
        defaults = dataclasses.replace(
            self.bundle.config.defaults,
            steps=validation.steps,
            guidance=validation.guidance,
            frames=clip.frames,
        )
        if self.config.distil is not None and self.config.distil.skip:
            defaults = dataclasses.replace(defaults, scheduler=FewSteps().scheduler)
        bundle_config = dataclasses.replace(
            self.bundle.config,
            defaults=defaults,
            frames=(clip.frames,),
            height_px=clip.height_px,
            width_px=clip.width_px,
            shapes=(),  # each loop has its clip's
        )
        pipeline = LoopAnimatePipeline(dataclasses.replace(self.bundle, config=bundle_config))
        clips = min(validation.clips, len(self.source))
        return [
            self._of_clip(pipeline, number)
            if number < clips
            else self._of_picture(pipeline, number, *self._pictures[number - clips])
            for number in range(rank, clips + len(self._pictures), world)
        ]

    def _of_picture(
        self, pipeline: LoopAnimatePipeline, number: int, path: Path, prompt: str
    ) -> GeneratedLoop:
        """The loop of a picture of the user's; its transparency, if it has any, is its mask."""
        picture = load_picture(path)
        shape = nearest_shape(self.config.clip.all_shapes, picture.height_px, picture.width_px)
        mask: Tensor | str = "none"
        if self._finder is not None and picture.alpha is not None:
            mask = picture.alpha
        elif self._finder is not None:
            picture = Picture(fit_picture(picture, shape.height_px, shape.width_px))
            mask = self._finder(picture.rgb, path.name)
        return self._generate(pipeline, number, picture, prompt, mask, shape)

    def _of_clip(self, pipeline: LoopAnimatePipeline, clip_id: int) -> GeneratedLoop:
        """The loop of a validation clip's first frame."""
        frames, masks = self.source.read(clip_id, [0])
        prompt = self.source.caption(clip_id)
        shape = self.source.shape(clip_id)
        picture = torch.from_numpy(frames[0]).float() / 255
        mask: Tensor | str = "none"
        if masks is not None and self.config.clip.mask == "object":
            mask = torch.from_numpy(masks[0]).float()
        elif self._finder is not None:  # as in training: in the picture that the network sees
            picture = fit_picture(picture, shape.height_px, shape.width_px)
            mask = self._finder(picture, self.source.name(clip_id))
        return self._generate(pipeline, clip_id, Picture(picture), prompt, mask, shape)

    def _generate(
        self,
        pipeline: LoopAnimatePipeline,
        number: int,
        picture: Picture,
        prompt: str,
        mask: Tensor | str,
        shape: Shape,
    ) -> GeneratedLoop:
        loop = pipeline(
            picture,
            prompt,
            mask=mask,
            seed=number,
            height_px=shape.height_px,
            width_px=shape.width_px,
        )
        row: dict[str, object] = {"prompt": prompt, "seed": number}
        preview = None
        if isinstance(mask, Tensor):
            row["object_share"] = round(float(loop.mask.mean()), 4)
            preview = _to_bytes(mask_preview(loop.picture[None], loop.mask[None])[0])
        if len(loop.frames) >= MIN_FRAMES:
            row |= check_loop(loop.frames, fps=loop.fps, reference=loop.picture).to_dict()
        return GeneratedLoop(
            number, row, loop.fps, _to_bytes(loop.picture), preview, _to_bytes(loop.frames)
        )

    def _gather(
        self, mine: list[GeneratedLoop] | str, accelerator: Accelerator
    ) -> list[list[GeneratedLoop] | str] | None:
        """Each process's loops, or why it has none; None on all but the first process."""
        world = accelerator.num_processes
        if world == 1:
            return [mine]
        if self._group is None:
            # A group on the CPU: the frames need no memory on a GPU, and NCCL's watchdog does not see the
            # other processes wait for the slowest.
            self._group = distributed.new_group(backend="gloo", timeout=TIMEOUT)
        shares: list[Any] | None = [None] * world if accelerator.is_main_process else None
        distributed.gather_object(mine, shares, dst=0, group=self._group)
        return shares

    def _save(self, loops: list[GeneratedLoop], step: int) -> None:
        loops = in_one_size(loops)
        shown = torch.linspace(0, len(loops[0].frames) - 1, COLUMNS).round().long()
        with_objects = any(loop.preview is not None for loop in loops)
        rows = []
        for loop in loops:
            preview = loop.picture if loop.preview is None else loop.preview
            stills = [loop.picture, preview] if with_objects else [loop.picture]
            rows.append(torch.cat([torch.stack(stills), loop.frames[shown]]))
        sheet = contact_sheet(torch.cat(rows).float() / 255, columns=len(rows[0]))
        save_picture(sheet, self.config.out / f"sheet-{step:08d}.png")
        content = {"step": step, "loops": [loop.row for loop in loops]}
        with atomic_write(self.config.out / f"loops-{step:08d}.json") as partial:
            partial.write_text(json.dumps(content, indent=1), "utf-8")
        side_by_side = torch.cat([loop.frames for loop in loops], dim=2).float() / 255
        path = self.config.out / f"loops-{step:08d}.mp4"
        write_video(side_by_side, path, fps=loops[0].fps, repeats=1)


def prompted_pictures(folder: Path | None) -> list[tuple[Path, str]]:
    """The pictures of `validation.pictures` with their prompts, by name.

    Raises:
        LoopAnimateError: there is no such folder, no picture in it, or a picture has no prompt.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise LoopAnimateError(f"validation.pictures is {folder}, which is not a folder")
    found = []
    for path in pictures_in(folder):
        try:
            prompt = " ".join(path.with_suffix(".txt").read_text(encoding="utf-8").split())
        except (OSError, UnicodeDecodeError) as error:
            raise LoopAnimateError(
                f"{path} needs its prompt in {path.with_suffix('.txt').name} beside it: {error}"
            ) from error
        found.append((path, prompt))
    if not found:
        raise LoopAnimateError(f"validation.pictures is {folder}, which has no pictures")
    return found


def in_order(shares: Sequence[list[GeneratedLoop] | str]) -> list[GeneratedLoop]:
    """The loops of all processes in the order of the sheet.

    Raises:
        LoopAnimateError: a process failed to generate its share.
    """
    loops: list[GeneratedLoop] = []
    for rank, share in enumerate(shares):
        if isinstance(share, str):
            raise LoopAnimateError(f"process {rank}: {share}")
        loops += share
    return sorted(loops, key=lambda loop: loop.number)


def in_one_size(loops: Sequence[GeneratedLoop]) -> list[GeneratedLoop]:
    """The loops with white margins, so that all have the height of the highest and the width of the widest."""
    height_px, width_px = (max(loop.picture.shape[side] for loop in loops) for side in (0, 1))

    def fill(pixels: Tensor) -> Tensor:
        top, left = (height_px - pixels.shape[-3]) // 2, (width_px - pixels.shape[-2]) // 2
        bottom = height_px - pixels.shape[-3] - top
        right = width_px - pixels.shape[-2] - left
        return F.pad(pixels, (0, 0, left, right, top, bottom), value=255)

    return [
        dataclasses.replace(
            loop,
            picture=fill(loop.picture),
            preview=None if loop.preview is None else fill(loop.preview),
            frames=fill(loop.frames),
        )
        for loop in loops
    ]


def _to_bytes(pixels: Tensor) -> Tensor:
    return (pixels.detach().float().clamp(0, 1) * 255).round().byte().cpu()


@contextmanager
def averaged_weights(ema: Ema) -> Iterator[None]:
    """Replaces the trained weights by their average while the block runs."""
    trained = {name: p.detach().clone() for name, p in ema.parameters.items()}
    try:
        for name, parameter in ema.parameters.items():
            parameter.data.copy_(ema.average[name])
        yield
    finally:
        for name, parameter in ema.parameters.items():
            parameter.data.copy_(trained[name])
