"""What `mini_quality.py` measures, as numbers, tables and a sheet of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, groupby
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from held_out import GROUPS
from PIL import Image, ImageDraw
from torch import Tensor

from loopanimate_core.picture.images import save_picture
from loopanimate_core.picture.sheet import contact_sheet
from loopanimate_training.data.stickers.clips import DrawnClip
from loopanimate_training.data.stickers.motion import STILL

MODEL, RENDERER = "mini", "renderer"
UNMOVED = ("still", "ping-pong", "crossfade")  # baselines that ignore the prompt
METHODS = (MODEL, RENDERER, *UNMOVED)
STILL_SHARE_OF_BOBBING = 0.25
GARBLED = "garbled"
_TITLE, _CELL = 44, 12


@dataclass(frozen=True)
class LoopFigures:
    """The scores of one loop. Distances are in grey levels 0..255; None if not defined.

    Attributes:
        group: one of `held_out.GROUPS`.
        subject: what moves; the loops of one subject have the same still and the same seed.
        asked, read: the verb of the prompt, and the one that the frames show (`GARBLED` if they show
            another picture).
        added: a second verb that the frames show; "" if there is none.
        strength: amplitude over the nominal one of the verb that was read.
        mse_reconstruction, mse_picture: squared error of frame 0 to the still, after and before the VAE.
        seam_jump: step from last to first frame over the largest of the four steps around it; None for
            "staying still".
        motion: largest distance to frame 0.
        motion_ratio: `motion` over the renderer's for that prompt; for "staying still", over the renderer's for
            the first verb.
        outside_error: distance to frame 0 where the object is never seen.
        seconds: time to make it; 0 for a baseline.
    """

    group: str
    subject: str
    asked: str
    read: str
    added: str
    strength: float
    mse_reconstruction: float
    mse_picture: float
    seam_jump: float | None
    motion: float
    motion_ratio: float
    outside_error: float
    seconds: float = 0.0

    @property
    def obeyed(self) -> bool:
        return self.read == self.asked


@dataclass(frozen=True)
class Target:
    """One row of the table: a figure, its unit, and the goal."""

    title: str
    figure: Callable[[Sequence[LoopFigures]], float | None]
    unit: str = ""
    goal: str = ""


@dataclass
class Figures:
    """All measurements: the loops by method, and what concerns all of them.

    Attributes:
        verbs: those that were asked for.
        vae_psnr_db: of the stills, by group.
        skipped: prompts whose true motion is not visible, by group.
    """

    frames: int
    verbs: Sequence[str]
    vae_psnr_db: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    loops: dict[str, list[LoopFigures]] = field(default_factory=lambda: {m: [] for m in METHODS})

    def to_dict(self) -> dict[str, object]:
        """Summary and single loops, ready for JSON."""
        summary = {
            method: {
                group: {
                    target.title: target.figure(self.loops_of(method, group))
                    for target in targets(self.verbs)
                }
                for group in self.groups
            }
            for method in METHODS
        }
        return {"chance": 1.0 / len(self.verbs), "summary": summary, **asdict(self)}

    @property
    def groups(self) -> list[str]:
        """Those that were measured, in the order of `GROUPS`."""
        return [group for group in GROUPS if group in self.vae_psnr_db]

    def loops_of(self, method: str, group: str) -> list[LoopFigures]:
        """The loops of one method and group."""
        return [loop for loop in self.loops[method] if loop.group == group]

    def table(self) -> str:
        """Model and baselines side by side, group by group, then what was read for each prompt.

        Each baseline that ignores the prompt has one column for all groups.
        """
        columns = [
            (method, group, self.loops_of(method, group))
            for method in (MODEL, RENDERER)
            for group in self.groups
        ]
        columns += [(method, "all", self.loops[method]) for method in UNMOVED]
        subjects = [len({loop.subject for loop in loops}) for _, _, loops in columns]
        lines = [
            _row("", [method for method, _, _ in columns]),
            _row("", [group for _, group, _ in columns] + ["goal"]),
            _row("subjects", [str(count) for count in subjects]),
            _row("loops", [str(len(loops)) for _, _, loops in columns]),
            _row("VAE PSNR, dB", [f"{self.vae_psnr_db[group]:.1f}" for group in self.groups]),
        ]
        for target in targets(self.verbs):
            cells = [_written(target.figure(loops), target.unit) for _, _, loops in columns]
            lines.append(_row(target.title, [*cells, target.goal]))
        for group in self.groups:
            pairs = [(loop.asked, loop.read) for loop in self.loops_of(MODEL, group)]
            lines += ["", *confusions(pairs, self.verbs, group)]
        return "\n".join(line.rstrip() for line in lines)


def confusions(pairs: Iterable[tuple[str, str]], verbs: Sequence[str], title: str) -> Iterable[str]:
    """A table of `pairs`: what was asked, down, and what was read, across, by the verbs' numbers."""
    counts = Counter(pairs)
    kinds = list(dict.fromkeys([*verbs, *(read for _, read in counts)]))
    heads = [str(number) for number in range(1, len(kinds) + 1)]
    yield f"{f'{title}: asked ↓, read →':{_TITLE - 14}}" + "".join(f"{head:>4}" for head in heads)
    for number, asked in enumerate(kinds, 1):
        if asked in verbs:
            cells = "".join(f"{counts[asked, read] or '·':>4}" for read in kinds)
            yield f"{f'{number:2} {asked}':{_TITLE - 14}}{cells}"
        else:
            yield f"{number:2} {asked}"


def targets(verbs: Sequence[str]) -> tuple[Target, ...]:
    """The rows of the table for prompts with these verbs."""
    return (
        Target("obeyed, mean over verbs", _mean_obeyed, "%", "≥ 95, 90 %"),
        *(Target(f"  {verb}", _obeyed(verb), "%") for verb in verbs),
        Target("obeyed, but another motion added", _added, "%"),
        Target("still: read so, under 25 % of bobbing", _kept_still, "%", "100 %"),
        Target("other verb, other reading (same seed)", _text_used, "%"),
        Target("motion over the renderer's, median", _median("motion_ratio"), "x", "0.7-1.3"),
        Target("seam over the steps around it, median", _median("seam_jump"), "x", "≤ 1.1"),
        Target("seam over the steps around it, 90 %", _below("seam_jump", 0.9), "x"),
        Target("change outside the swept mask", _mean("outside_error"), "x", "≤ 1.5"),
        Target("change outside the swept mask, 90 %", _below("outside_error", 0.9), "x"),
        Target("MSE of frame 0 to its reconstruction", _mean("mse_reconstruction")),
        Target("MSE of frame 0 to the picture", _mean("mse_picture")),
        Target("seconds a loop, median", _median("seconds"), "s"),
    )


def _mean(name: str) -> Callable[[Sequence[LoopFigures]], float | None]:
    return lambda loops: fmean(getattr(loop, name) for loop in loops) if loops else None


def _below(name: str, share: float) -> Callable[[Sequence[LoopFigures]], float | None]:
    """The value that this share of the moving loops is below."""

    def figure(loops: Sequence[LoopFigures]) -> float | None:
        moving = [loop for loop in loops if loop.asked != STILL]
        values = [value for loop in moving if (value := getattr(loop, name)) is not None]
        return float(np.quantile(values, share)) if values else None

    return figure


def _median(name: str) -> Callable[[Sequence[LoopFigures]], float | None]:
    return _below(name, 0.5)


def _obeyed(verb: str) -> Callable[[Sequence[LoopFigures]], float | None]:
    return lambda loops: _share(loop.obeyed for loop in loops if loop.asked == verb)


def _mean_obeyed(loops: Sequence[LoopFigures]) -> float | None:
    verbs = dict.fromkeys(loop.asked for loop in loops)
    return fmean(_obeyed(verb)(loops) or 0.0 for verb in verbs) if verbs else None


def _added(loops: Sequence[LoopFigures]) -> float | None:
    return _share(bool(loop.added) for loop in loops if loop.obeyed)


def _kept_still(loops: Sequence[LoopFigures]) -> float | None:
    return _share(
        loop.obeyed and loop.motion_ratio < STILL_SHARE_OF_BOBBING
        for loop in loops
        if loop.asked == STILL
    )


def _text_used(loops: Sequence[LoopFigures]) -> float | None:
    """Share of prompt pairs, for one subject and seed, that are read differently."""
    return _share(
        first.read != second.read
        for _, own in groupby(loops, lambda loop: (loop.group, loop.subject))
        for first, second in combinations(list(own), 2)
    )


def _share(answers: Iterable[bool]) -> float | None:
    answers = list(answers)
    return fmean(answers) if answers else None


def _row(title: str, cells: Sequence[str]) -> str:
    return f"{title:{_TITLE}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)


def _written(value: float | None, unit: str) -> str:
    if value is None or (unit == "s" and value == 0.0):
        return "-"
    return {"%": f"{value:.0%}", "x": f"{value:.2f}", "s": f"{value:.1f}"}.get(unit, f"{value:.0f}")


class Sheet:
    """A picture of the loops of the first subjects of every group, one column a group: for each loop the still,
    some frames, the prompt and what was read."""

    BAND_PX, FRAMES, SUBJECTS = 14, 9, 4

    def __init__(self) -> None:
        self._strips: dict[str, list[Tensor]] = {}
        self._subjects: dict[str, set[str]] = {}

    def add(self, clip: DrawnClip, figures: LoopFigures, frames: Tensor) -> None:
        subjects = self._subjects.setdefault(figures.group, set())
        if len(subjects | {figures.subject}) > self.SUBJECTS:
            return
        subjects.add(figures.subject)
        shown = torch.linspace(0, len(frames) - 1, self.FRAMES).round().long()
        still = clip.scene.still()[0][None]
        strip = contact_sheet(torch.cat([still, frames[shown]]), self.FRAMES + 1, gap_px=2)
        band = Image.new("RGB", (strip.shape[1], self.BAND_PX), "white")
        mark = "" if figures.obeyed else f": read as {figures.read}"
        ImageDraw.Draw(band).text((2, 0), clip.caption + mark, fill="black" if not mark else "red")
        self._strips.setdefault(figures.group, []).extend(
            [torch.from_numpy(np.array(band)).float() / 255.0, strip]
        )

    def save(self, path: Path) -> None:
        columns = [torch.cat(strips) for strips in self._strips.values()]
        height_px = max(len(column) for column in columns)
        whole = torch.ones(height_px, sum(column.shape[1] for column in columns), 3)
        left = 0
        for column in columns:
            whole[: len(column), left : left + column.shape[1]] = column
            left += column.shape[1]
        save_picture(whole, path)
