"""Inputs that several nodes have: the same name, range and default everywhere, each with its own tooltip."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

MAX_STEPS = 1000


def sampling_inputs(latent: str) -> list[Any]:
    """What every sampler samples from, in this order; `latent` is that input's tooltip."""
    conditioning = "From Build Loop Conditions."
    return [
        io.Model.Input("model", tooltip="From Load LoopAnimate, with or without LoRAs."),
        io.Conditioning.Input("positive", tooltip=conditioning),
        io.Conditioning.Input("negative", tooltip=conditioning),
        io.Latent.Input("latent", tooltip=latent),
    ]


def strength_inputs(steps: str, cfg: str) -> list[Any]:
    """`steps` and `cfg`, where 0 is the model's own value; the arguments are their tooltips."""
    return [
        io.Int.Input("steps", default=0, min=0, max=MAX_STEPS, tooltip=steps),
        io.Float.Input("cfg", default=0.0, min=0.0, max=100.0, step=0.1, tooltip=cfg),
    ]


def fps_input(tooltip: str) -> Any:
    """Frames per second of frames that come in or are played."""
    return io.Float.Input("fps", default=8.0, min=1.0, max=120.0, step=0.5, tooltip=tooltip)
