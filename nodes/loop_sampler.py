"""Loop Sampler: a KSampler that knows the model's own best settings and every way to close a loop."""

# pyright: reportMissingImports=false
# (ComfyUI is there only at run time.)
from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from loopanimate_core.closing import CLOSINGS
from loopanimate_core.errors import LoopAnimateError

from .schema import schema

BEST = "model's best"

# Core's schedulers by their names in ComfyUI: sampler, and the spacing of its steps. `exponential` is even in
# log-sigma, which for these schedules is the uniform log-SNR of `lu`.
COMFY_NAMES = {
    "dpmpp_2m_lu": ("dpmpp_2m", "exponential"),
    "dpmpp_2m_karras": ("dpmpp_2m", "karras"),
    "unipc": ("uni_pc", "karras"),
    "euler": ("euler", "simple"),
    "euler_ancestral": ("euler_ancestral", "simple"),
    "ddim": ("ddim", "simple"),
    "lcm": ("lcm", "simple"),
}


class LoopSampler(io.ComfyNode):
    """Schema and wiring; ComfyUI samples, `native.closing` closes the loop."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        from comfy.samplers import KSampler

        return schema(
            "LoopSampler",
            "Loop Sampler",
            description=(
                "Samples a loop whose last frame flows into its first, shows it while it comes into being,"
                " and returns the frames that play."
            ),
            search_aliases=["ksampler", "loop", "seamless"],
            inputs=[
                io.Model.Input("model", tooltip="From Load LoopAnimate; LoRAs may lie in between."),
                io.Conditioning.Input("positive", tooltip="From Build Loop Conditions."),
                io.Conditioning.Input("negative", tooltip="From Build Loop Conditions."),
                io.Latent.Input("latent", tooltip="From Build Loop Conditions, or a finished loop to sample again."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same seed with the same settings gives the same loop.",
                ),
                io.Int.Input("steps", default=0, min=0, max=1000, tooltip="Steps of sampling; 0: the model's own best number. More takes longer and is not always better."),
                io.Float.Input("cfg", default=0.0, min=0.0, max=100.0, step=0.1, tooltip="How strongly the prompt is followed; 0: the model's own best, 1: no guidance, and twice as fast."),
                io.Combo.Input("sampler", options=[BEST, *KSampler.SAMPLERS], default=BEST, tooltip="How the noise is removed. Every sampler closes the loop."),
                io.Combo.Input("scheduler", options=[BEST, *KSampler.SCHEDULERS], default=BEST, tooltip="How the noise levels are spaced over the steps."),
                io.Combo.Input(
                    "closing",
                    options=list(CLOSINGS),
                    default="tie",
                    tooltip=(
                        "How the loop is closed. tie: the first frame is seen again at the end. shift: also moves"
                        " the seam from step to step. windows: for loops of any length, in pieces that overlap."
                        " off: not at all."
                    ),
                ),
                io.Float.Input("hold_still", default=-1.0, min=-1.0, max=1.0, step=0.01, optional=True, tooltip="Takes flicker weaker than this out of places that hardly move. -1: the model's own level, 0: off. Raise it where a background shimmers, lower it where something small should move."),
            ],
            outputs=[
                io.Latent.Output("latent_out", display_name="latent", tooltip="The frames that play, one less than were asked for, for VAE Decode."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: list[Any],
        negative: list[Any],
        latent: dict[str, Any],
        seed: int,
        steps: int,
        cfg: float,
        sampler: str,
        scheduler: str,
        closing: str,
        hold_still: float = -1.0,
    ) -> io.NodeOutput:
        import comfy.sample
        import comfy.utils

        from .native.closing import close_loops
        from .native.model import loop_model_of
        from .native.still import without_flicker

        best = loop_model_of(model).bundle_config.defaults
        steps, cfg = steps or best.steps, cfg or best.guidance
        sampler, scheduler = _names(sampler, scheduler, best.scheduler)
        model = close_loops(model, closing)
        still = _with_closing_frame(latent)
        noise = comfy.sample.prepare_noise(still, seed, latent.get("batch_index"))
        bar = comfy.utils.ProgressBar(steps)
        samples = comfy.sample.sample(
            model, noise, steps, cfg, sampler, scheduler, positive, negative, still,
            denoise=latent.get("loop_start", 1.0), noise_mask=latent.get("noise_mask"), seed=seed,
            callback=lambda step, x0, x, total: bar.update_absolute(step + 1, total),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        )  # fmt: skip
        level = best.hold_still if hold_still < 0 else hold_still
        playing = without_flicker(model, samples[:-1], positive, level)
        kept = {k: v for k, v in latent.items() if k in ("loop_start", "noise_mask")}
        return io.NodeOutput({**kept, "samples": playing, "loop_plays": len(playing)})


def _names(sampler: str, scheduler: str, best: str) -> tuple[str, str]:
    """ComfyUI's names for the choices; older versions do not check them."""
    from comfy.samplers import KSampler

    own_sampler, own_scheduler = COMFY_NAMES[best]
    sampler = own_sampler if sampler == BEST else sampler
    scheduler = own_scheduler if scheduler == BEST else scheduler
    for what, name, legal in (
        ("sampler", sampler, KSampler.SAMPLERS),
        ("scheduler", scheduler, KSampler.SCHEDULERS),
    ):
        if name not in legal:
            raise LoopAnimateError(f"this ComfyUI has no {what} {name!r}; choose one of its list")
    return sampler, scheduler


def _with_closing_frame(latent: dict[str, Any]) -> torch.Tensor:
    """The frames the loop is closed over, `[F, 4, h, w]`: of a finished loop, its frames and the first again."""
    samples = latent["samples"]
    if samples.ndim != 4 or samples.shape[1] != 4 or len(samples) < 2:
        raise LoopAnimateError(
            f"the latent has the shape {list(samples.shape)}; connect that of Build Loop Conditions"
        )
    if latent.get("loop_plays") == len(samples):
        samples = torch.cat([samples, samples[:1]])
    if len(samples) < 3:
        raise LoopAnimateError("a loop needs 3 frames or more")
    return samples
