"""Closed loops under every sampler of ComfyUI: two wrappers around a MODEL, no sampler of our own.

The sampler is given the P frames that play; each time it asks the model about them, the model is asked
about windows on their ring (`loopanimate_core.closing`), and the answers are averaged. So ancestral and
stochastic samplers, CFG++ and whatever comes next close their loops too.
"""

# pyright: reportMissingImports=false
# (ComfyUI is there only at run time.)
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.patcher_extension
import torch
from torch import Tensor

from loopanimate_core.closing import CLOSINGS, Closing
from loopanimate_core.errors import LoopAnimateError

from .preview import LoopPreview

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

KEY = "loopanimate"
_WRAPPERS = comfy.patcher_extension.WrappersMP


def close_loops(model: ModelPatcher, closing: str) -> ModelPatcher:
    """A clone of a LoopAnimate MODEL that closes its loops in this way and no other.

    Args:
        closing: one of `loopanimate_core.closing.CLOSINGS`.
    """
    if closing not in CLOSINGS:
        raise LoopAnimateError(f"closing is {closing!r}; choose one of {', '.join(CLOSINGS)}")
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
        """Sample the frames that play; return as many as were asked for, the last one like the first."""
        options = extra_args["model_options"]
        if options.get("context_handler") is not None:
            raise LoopAnimateError(
                "Context Windows cannot be used with LoopAnimate; Loop Sampler's closing 'windows' makes long loops"
            )
        model = guider.model_patcher.model
        preview = LoopPreview(model.latent_format, model.bundle_config.defaults.fps)
        frames = len(noise)
        if frames < 3:  # a picture, not a clip
            return executor(
                guider,
                sigmas,
                extra_args,
                callback,
                noise,
                latent_image,
                denoise_mask,
                *args,
                **kwargs,
            )
        closing = Closing(closing_name, frames, model.bundle_config.window_frames(frames))
        options.setdefault("transformer_options", {})[KEY] = closing
        ring = closing.sampled_frames

        def cut(batch: Tensor | None) -> Tensor | None:
            return batch[:ring] if torch.is_tensor(batch) and len(batch) == frames else batch

        def close(batch: Tensor) -> Tensor:
            return torch.cat([batch, batch[: frames - ring]])

        def closed_callback(step: int, x0: Tensor, x: Tensor, steps: int) -> None:
            preview.show(x0[: frames - 1], step, steps)
            if callback is not None:
                callback(step, close(x0), close(x), steps)

        sampled = executor(
            guider, sigmas, extra_args, closed_callback, cut(noise), cut(latent_image),
            cut(denoise_mask), *args, **kwargs,
        )  # fmt: skip
        return close(sampled)

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
    """Ask the model about windows of `x [B*P, 4, h, w]` and average what it says about each frame."""
    options = transformer_options or {}
    closing = options.get(KEY)
    if closing is None:
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)
    ring = closing.sampled_frames
    branches = len(x) // ring
    total, weight = torch.zeros_like(x.unflatten(0, (branches, ring))), x.new_zeros(ring, 1, 1, 1)
    for window in closing.windows(*progress(options)):
        indices, weights = window.indices.to(x.device), window.weights.to(x)[:, None, None, None]
        rows = (torch.arange(branches, device=x.device)[:, None] * ring + indices).flatten()

        def seen(value: Any, rows: Tensor = rows) -> Any:
            return value[rows] if torch.is_tensor(value) and len(value) == len(x) else value

        inside = {name: seen(value) for name, value in conds.items()}
        inside["num_video_frames"] = len(indices)
        answer = executor(seen(x), seen(t), seen(c_concat), c_crossattn, control, options, **inside)
        total.index_add_(1, indices, answer.unflatten(0, (branches, -1)) * weights)
        weight.index_add_(0, indices, weights)
    return (total / weight).flatten(0, 1)


def progress(transformer_options: dict[str, Any]) -> tuple[int, int]:
    """Which step of how many this is, from the noise level, so that second-order samplers agree with others."""
    sigmas = transformer_options["sample_sigmas"]
    step = int((sigmas - transformer_options["sigmas"][0]).abs().argmin())
    steps = len(sigmas) - 1
    return min(step, steps - 1), steps
