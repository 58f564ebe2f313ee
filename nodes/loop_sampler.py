"""Loop Sampler: a KSampler with the model's own best settings and every way to close a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from loopanimate_core.closing import CLOSINGS
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.ranges import MAX_SEED
from loopanimate_core.settings import PRESETS, resolve_settings

from .inputs import sampling_inputs, strength_inputs
from .schema import supported

if TYPE_CHECKING:
    from collections.abc import Callable

    from .native.batch import LoopBatch

BEST = "model's best"

# Core's schedulers as ComfyUI's sampler and scheduler. `exponential` is even in log-sigma, which for these noise
# schedules is the uniform log-SNR of `lu`.
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

        return io.Schema(
            node_id="LoopAnimate_LoopSampler",
            display_name="Loop Sampler",
            category="LoopAnimate",
            description=(
                "Samples a seamless loop, shows it while it is made, and returns the frames that play."
            ),
            inputs=[
                *sampling_inputs("From Build Loop Conditions, or a finished loop to sample again."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="The same seed with the same settings gives the same loop.",
                ),
                *strength_inputs(
                    steps=(
                        "Number of sampling steps. 0: the model's own best number. More steps take longer"
                        " and are not always better."
                    ),
                    cfg=(
                        "How strongly to follow the prompt. 0: the model's own best value. 1: no guidance,"
                        " twice as fast."
                    ),
                ),
                io.Combo.Input(
                    "sampler",
                    options=[BEST, *KSampler.SAMPLERS],
                    default=BEST,
                    tooltip="How the noise is removed. Every sampler closes the loop.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=[BEST, *KSampler.SCHEDULERS],
                    default=BEST,
                    tooltip="How the noise levels are spaced over the steps.",
                ),
                io.Combo.Input(
                    "closing",
                    options=list(CLOSINGS),
                    default="tie",
                    tooltip=(
                        "How the loop is closed. tie: the model sees the first frame again at the end."
                        " shift: also moves the seam from step to step. windows: loops of any length, in"
                        " overlapping pieces. off: not closed."
                    ),
                ),
                io.Float.Input(
                    "hold_still",
                    default=-1.0,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip=(
                        "Removes flicker weaker than this from places that hardly move. -1: the model's own"
                        " value, 0: off. Raise it if the background shimmers, lower it if something small"
                        " should move."
                    ),
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="best",
                    optional=True,
                    tooltip=(
                        "best: the model's own best settings. fast: few steps, with the model's few-step"
                        " weights if it has them. Steps, cfg, sampler and scheduler override either."
                    ),
                ),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip=(
                        "Share of the noise to start with. 0: start of Build Loop Conditions. For a second pass over"
                        " a finished loop, for example one of enlarged latents: about 0.5, and less keeps more of it."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "latent_out",
                    display_name="latent",
                    tooltip=(
                        "The frames that play, one less than requested, for VAE Decode; a list with one loop of"
                        " each in a latent batch."
                    ),
                    is_output_list=True,
                ),
            ],
            **supported(search_aliases=["ksampler", "loop", "seamless"]),
        )

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
        preset: str = "best",
        start: float = 0.0,
    ) -> io.NodeOutput:
        import comfy.utils

        bar = comfy.utils.ProgressBar(1)
        finished = sample_loops(
            model,
            positive,
            negative,
            latent,
            lambda step, steps: bar.update_absolute(step, steps),
            seed=seed,
            steps=steps,
            cfg=cfg,
            sampler=sampler,
            scheduler=scheduler,
            closing=closing,
            hold_still=hold_still,
            preset=preset,
            start=start,
        )
        return io.NodeOutput(finished)


def sample_loops(
    model: Any,
    positive: list[Any],
    negative: list[Any],
    latent: dict[str, Any],
    on_step: Callable[[int, int], None],
    *,
    seed: int,
    steps: int = 0,
    cfg: float = 0.0,
    sampler: str = BEST,
    scheduler: str = BEST,
    closing: str = "tie",
    hold_still: float = -1.0,
    preset: str = "best",
    start: float = 0.0,
) -> list[dict[str, Any]]:
    """Sample each loop of a latent, with the settings of the node; LATENTs of the frames that play.

    Args:
        on_step: called with the number of finished steps and that of all.

    Raises:
        LoopAnimateError: a setting out of its range, or a latent of another kind.
    """
    import comfy.sample
    import comfy.utils
    from node_helpers import conditioning_set_values

    from .native.batch import FRAMES_KEY, with_closing_frames
    from .native.closing import close_loops
    from .native.few_steps import with_few_steps
    from .native.model import loop_model_of
    from .native.still import without_flicker

    batch = _loops_of(latent)
    positive, negative = (
        conditioning_set_values(prompt, {FRAMES_KEY: batch.frames})
        for prompt in (positive, negative)
    )
    still = with_closing_frames(latent["samples"], batch)
    settings = resolve_settings(
        loop_model_of(model).bundle_config,
        preset=preset,
        seed=seed,
        frames=batch.frames,
        steps=None if steps == 0 else steps,
        guidance=None if cfg == 0 else cfg,
        closing=closing,
        start=start or latent.get("loop_start"),
        hold_still=None if hold_still < 0 else hold_still,
    )
    sampler, scheduler = _comfy_names(sampler, scheduler, settings.scheduler)
    model = close_loops(with_few_steps(model) if settings.few_steps else model, closing)
    samples = comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(still, seed, latent.get("batch_index")),
        settings.steps,
        settings.guidance,
        sampler,
        scheduler,
        positive,
        negative,
        still,
        denoise=settings.start,
        noise_mask=latent.get("noise_mask"),
        seed=seed,
        callback=lambda step, x0, x, total: on_step(step + 1, total),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
    )
    kept = {k: v for k, v in latent.items() if k in ("loop_start", "noise_mask")}
    finished = []
    for loop in samples.split(batch.frames):
        playing = without_flicker(model, loop[:-1], positive, settings.hold_still)
        finished.append({**kept, "samples": playing, "loop_plays": len(playing)})
    return finished


def _comfy_names(sampler: str, scheduler: str, best: str) -> tuple[str, str]:
    """ComfyUI's sampler and scheduler; older versions of it do not check the names themselves."""
    from comfy.samplers import KSampler

    own_sampler, own_scheduler = COMFY_NAMES[best]
    sampler = own_sampler if sampler == BEST else sampler
    scheduler = own_scheduler if scheduler == BEST else scheduler
    for what, name, legal in (
        ("sampler", sampler, KSampler.SAMPLERS),
        ("scheduler", scheduler, KSampler.SCHEDULERS),
    ):
        if name not in legal:
            raise LoopAnimateError(f"this version of ComfyUI has no {what} {name!r}")
    return sampler, scheduler


def _loops_of(latent: dict[str, Any]) -> LoopBatch:
    """The loops of a latent, from Build Loop Conditions or finished ones.

    Raises:
        LoopAnimateError: a latent of another kind.
    """
    from .native.batch import FRAMES_KEY, LoopBatch, loops_in

    samples = latent["samples"]
    if samples.ndim != 4 or samples.shape[1] != 4 or len(samples) < 2:
        raise LoopAnimateError(
            f"the latent has the shape {list(samples.shape)}; connect the latent of Build Loop Conditions"
        )
    plays = latent.get("loop_plays")
    if plays and len(samples) % plays == 0:
        return LoopBatch(len(samples) // plays, plays + 1, finished=True)
    batch = loops_in(len(samples), latent.get(FRAMES_KEY))
    return batch if not batch.finished else LoopBatch(1, len(samples))
