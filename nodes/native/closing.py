"""Closed loops under every sampler of ComfyUI: two wrappers around a MODEL, no sampler of our own.

The sampler gets the P frames that play. Whenever it calls the model, the model is called on windows of
them (`loopanimate_core.closing`), and the predictions are averaged. So ancestral and stochastic samplers,
CFG++ and future ones close their loops too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.patcher_extension
import torch
from torch import Tensor

from loopanimate_core.closing import Closing, Window, blend, check_closing
from loopanimate_core.conditions import MIN_FRAMES

from .batch import Rings, frames_in_prompts, loops_in
from .patches import refuse_kinds, refuse_model_patches, refuse_sampling
from .preview import LoopPreview

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

KEY = "loopanimate"
_WRAPPERS = comfy.patcher_extension.WrappersMP


def close_loops(model: ModelPatcher, closing: str) -> ModelPatcher:
    """A clone of a LoopAnimate MODEL that closes its loops this way; an earlier closing is replaced.

    Args:
        closing: one of `loopanimate_core.closing.CLOSINGS`.
    """
    check_closing(closing)
    model = model.clone()
    for kind, wrapper in (
        (_WRAPPERS.SAMPLER_SAMPLE, _sampler_wrapper(closing)),
        (_WRAPPERS.APPLY_MODEL, apply_in_windows),
    ):
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


def _sampler_wrapper(closing_name: str) -> Callable[..., Tensor]:
    def sample(
        executor: Callable[..., Tensor],
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable[..., None] | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Sample the frames that play of each loop, and return what came in: with the first one again at the end."""
        options = extra_args["model_options"]
        refuse_model_patches(options)
        model = guider.model_patcher.model
        refuse_sampling(model.predicts, model.model_sampling)
        prompts = [prompt for of_kind in guider.conds.values() for prompt in of_kind or ()]
        batch = loops_in(len(noise), frames_in_prompts(prompts))
        if batch.frames < MIN_FRAMES:  # a picture, not a clip
            inputs = (callback, noise, latent_image, denoise_mask)
            return executor(guider, sigmas, extra_args, *inputs, *args, **kwargs)
        preview = LoopPreview(model.latent_format, model.bundle_config.defaults.fps)
        closing = Closing(
            closing_name, batch.frames, model.bundle_config.window_frames(batch.frames)
        )
        options.setdefault("transformer_options", {})[KEY] = closing
        rings = Rings(batch, closing.sampled_frames)
        sampled: list[Tensor] = []
        shown: list[Tensor] = []  # the last predictions of the loops before
        for loop in range(batch.loops):

            def of_all(step: int, x0: Tensor, x: Tensor, steps: int, loop: int = loop) -> None:
                """The callback, told of this loop as of a part of all."""
                step_of_all, steps_of_all = step + loop * steps, steps * batch.loops
                preview.show(x0[: batch.frames - 1], step_of_all, steps_of_all)
                ended = rings.whole(x0)
                if callback is not None:
                    found = torch.cat([*shown, ended]), torch.cat([*sampled, rings.whole(x)])
                    callback(step_of_all, *found, steps_of_all)
                if step + 1 == steps:
                    shown.append(ended)

            parts = (rings.part(frames, loop) for frames in (noise, latent_image, denoise_mask))
            result = executor(guider, sigmas, extra_args, of_all, *parts, *args, **kwargs)
            sampled.append(rings.whole(result))
        return torch.cat(sampled)

    return sample


def apply_in_windows(
    executor: Callable[..., Tensor],
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **conds: Any,
) -> Tensor:
    """Call the model on windows of `x [B*P, 4, h, w]` and average its predictions of each frame."""
    options = transformer_options or {}
    closing = options.get(KEY)
    refuse_kinds(options)  # some of them cut the clip into pieces before it comes here
    if closing is None:
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)
    ring, rows = closing.sampled_frames, len(x)
    branches = rows // ring
    windows = closing.windows(*progress(options))

    def predict(window: Window) -> Tensor:
        """The prediction `[B, 4, L, h, w]` of one window."""
        indices = window.indices.to(x.device)
        seen_rows = (torch.arange(branches, device=x.device)[:, None] * ring + indices).flatten()

        def seen(value: Any) -> Any:
            return value[seen_rows] if torch.is_tensor(value) and len(value) == rows else value

        inside = {name: seen(value) for name, value in conds.items()}
        controlled = control and {
            part: [seen(residual) for residual in residuals] for part, residuals in control.items()
        }
        inside |= {"num_video_frames": len(indices), "loop_window": indices}
        predicted = executor(
            seen(x), seen(t), seen(c_concat), c_crossattn, controlled, options, **inside
        )
        return predicted.unflatten(0, (branches, -1)).transpose(1, 2)

    mean = blend(map(predict, windows), windows, ring)
    return mean.transpose(1, 2).flatten(0, 1)


def progress(transformer_options: dict[str, Any]) -> tuple[int, int]:
    """Number of this step, from 0, and of all steps.

    It is found by the noise level, because second-order samplers call the model twice per step.
    """
    sigmas = transformer_options["sample_sigmas"]
    step = int((sigmas - transformer_options["sigmas"][0]).abs().argmin())
    steps = len(sigmas) - 1
    return min(step, steps - 1), steps
