"""Seed Hunt: drafts of several seeds side by side, of which one is chosen for the finished loop."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.latest import io

from loopanimate_core.check import check_loop
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import save_picture
from loopanimate_core.picture.labels import labelled_sheet, small_clip
from loopanimate_core.picture.sheet import draw_sheet, plan_sheet
from loopanimate_core.ranges import MAX_SEED

from .common import progress, temp_file
from .inputs import sampling_inputs, strength_inputs
from .loop_sampler import sample_loops
from .schema import supported

MAX_COUNT = 16
LEAST_STEPS = 4
SHARE_OF_STEPS = 3  # drafts take a third of the model's own steps
FPS = 8.0


@dataclass(frozen=True)
class Draft:
    """A loop of few steps.

    Attributes:
        latent: of the frames that play.
        clip: `[P, h, w, 3]` uint8, small.
        sheet: what the page plays.
        verdict, motion: of the loop check; motion is the median step of 255.
    """

    seed: int
    latent: dict[str, Any]
    clip: torch.Tensor
    sheet: dict[str, Any]
    verdict: str
    motion: float

    @property
    def label(self) -> str:
        return f"{self.seed}: {self.verdict}, {self.motion:.1f}"


class Remembered:
    """The drafts of the last runs: another choice must not make them again.

    They belong to the very objects that they were made of, which ComfyUI keeps from run to run as long as nothing
    before this node has changed.
    """

    def __init__(self, most: int) -> None:
        self._runs: deque[tuple[list[Callable[[], Any]], Any, list[Draft]]] = deque(maxlen=most)

    def find(self, sources: list[Any], settings: Any) -> list[Draft] | None:
        for found, of, drafts in self._runs:
            same = len(found) == len(sources) and all(
                reference() is source for reference, source in zip(found, sources, strict=True)
            )
            if same and of == settings:
                return drafts
        return None

    def keep(self, sources: list[Any], settings: Any, drafts: list[Draft]) -> None:
        self._runs.append(([_reference(source) for source in sources], settings, drafts))


def _reference(value: Any) -> Callable[[], Any]:
    """Weak where that is possible, so that a model is not kept in memory; lists and dicts are small."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


REMEMBERED = Remembered(2)


class SeedHunt(io.ComfyNode):
    """Schema and wiring; sampling is Loop Sampler's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopAnimate_SeedHunt",
            display_name="Seed Hunt",
            category="LoopAnimate",
            description=(
                "Draws quick drafts of several seeds and plays them side by side. Click one: the next run passes on its"
                " seed, and nothing but the finished loop is made."
            ),
            inputs=[
                *sampling_inputs("From Build Loop Conditions, of one picture."),
                io.Vae.Input("vae", tooltip="The VAE of the same model."),
                io.Int.Input(
                    "first_seed",
                    default=1,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=False,
                    tooltip="The seed of draft 1; the others count on from it. Raise it for other drafts.",
                ),
                io.Int.Input(
                    "count",
                    default=6,
                    min=2,
                    max=MAX_COUNT,
                    tooltip="Number of drafts, one after the other.",
                ),
                io.Int.Input(
                    "pick",
                    default=0,
                    min=0,
                    max=MAX_COUNT,
                    tooltip=(
                        "The draft that is passed on, from 1; clicking a draft sets it. 0: only draw drafts; the nodes"
                        " behind latent and seed wait."
                    ),
                ),
                *strength_inputs(
                    steps="Sampling steps of a draft. 0: a third of the model's own number.",
                    cfg="How strongly to follow the prompt, as in Loop Sampler. 0: the model's own best value.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "sheet",
                    display_name="sheet",
                    tooltip="All drafts in one picture that plays, with seed, verdict and motion, for Save Loop.",
                ),
                io.Latent.Output(
                    "latent_out",
                    display_name="latent",
                    tooltip="The chosen draft, for VAE Decode or a second pass.",
                ),
                io.Int.Output(
                    "seed",
                    display_name="seed",
                    tooltip="The chosen seed, for seed of Loop Sampler.",
                ),
            ],
            is_output_node=True,
            **supported(search_aliases=["contact sheet", "seeds", "variations", "grid"]),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: list[Any],
        negative: list[Any],
        latent: dict[str, Any],
        vae: Any,
        first_seed: int,
        count: int,
        pick: int,
        steps: int,
        cfg: float,
    ) -> io.NodeOutput:
        if not 2 <= count <= MAX_COUNT:
            raise LoopAnimateError(f"count must be between 2 and {MAX_COUNT}, got {count}")
        if not 0 <= pick <= count:
            raise LoopAnimateError(f"pick must be between 0 and {count}, the drafts, got {pick}")
        if first_seed + count - 1 > MAX_SEED:
            raise LoopAnimateError(
                f"first_seed must be at most {MAX_SEED - count + 1} with count {count}, got {first_seed}"
            )
        sources, settings = (
            [model, positive, negative, latent, vae],
            (first_seed, count, steps, cfg),
        )
        drafts = REMEMBERED.find(sources, settings)
        if drafts is None:
            seeds = range(first_seed, first_seed + count)
            drafts = _draw((model, positive, negative, latent), vae, seeds, steps, cfg)
            REMEMBERED.keep(sources, settings, drafts)
        marked = pick - 1 if pick else None
        sheet = labelled_sheet([d.clip for d in drafts], [d.label for d in drafts], marked)
        return io.NodeOutput(
            sheet, *_chosen(drafts, pick), ui={"loopanimate_hunt": [_shown(drafts)]}
        )


def _draw(
    sampled: tuple[Any, list[Any], list[Any], dict[str, Any]],
    vae: Any,
    seeds: range,
    steps: int,
    cfg: float,
) -> list[Draft]:
    """The drafts, one seed after the other; cancelling stops between two steps."""
    from .native.model import loop_model_of

    own = loop_model_of(sampled[0]).bundle_config.defaults.steps
    steps = steps or min(own, max(LEAST_STEPS, round(own / SHARE_OF_STEPS)))
    done, drafts = progress(len(seeds) * steps), []
    for number, seed in enumerate(seeds):
        loops = sample_loops(
            *sampled,
            lambda step, of, before=number * steps: done(before + round(step * steps / of)),
            seed=seed,
            steps=steps,
            cfg=cfg,
        )
        if len(loops) != 1:
            raise LoopAnimateError(
                f"Seed Hunt takes the latent of one loop, got {len(loops)}; give it one picture at a time"
            )
        drafts.append(_draft(seed, loops[0], vae))
    return drafts


def _draft(seed: int, latent: dict[str, Any], vae: Any) -> Draft:
    frames = vae.decode(latent["samples"])
    report, clip = check_loop(frames[..., :3].float().cpu()), small_clip(frames)
    layout = plan_sheet(*clip.shape[:3])
    path, address = temp_file("loopanimate_draft", ".jpg")
    save_picture(draw_sheet(clip.float() / 255, layout), path)
    sheet = {
        "sheet": address,
        "columns": layout.columns,
        "frames": layout.frames,
        "width": layout.width_px,
        "height": layout.height_px,
        "fps": FPS,
    }
    return Draft(seed, latent, clip, sheet, report.verdict, report.motion)


def _chosen(drafts: list[Draft], pick: int) -> tuple[Any, Any]:
    """Latent and seed of a draft; without a choice, what keeps the nodes behind them from running."""
    if pick:
        return drafts[pick - 1].latent, drafts[pick - 1].seed
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None), ExecutionBlocker(None)


def _shown(drafts: list[Draft]) -> dict[str, Any]:
    """What the page shows in the node; seeds as text, because JavaScript rounds numbers above 2⁵³."""
    return {
        "drafts": [
            {
                **draft.sheet,
                "seed": str(draft.seed),
                "verdict": draft.verdict,
                "motion": round(draft.motion, 1),
            }
            for draft in drafts
        ]
    }
