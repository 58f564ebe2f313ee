"""Interpolate Loop: more frames per second in one node, across the seam too."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from loopanimate_core.video.between import MAX_TIMES, METHODS, interpolate_loop

from .common import progress, rgb
from .inputs import fps_input
from .schema import supported


class InterpolateLoop(io.ComfyNode):
    """Schema and wiring; see `loopanimate_core.video.between`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopAnimate_InterpolateLoop",
            display_name="Interpolate Loop",
            category="LoopAnimate",
            description=(
                "Makes a loop smoother: adds frames between its frames, and between the last one and the first."
                " It needs no other extension."
            ),
            inputs=[
                io.Image.Input(
                    "images", tooltip="The frames that play, from Loop Sampler and VAE Decode."
                ),
                fps_input("Frames per second of the loop as it comes in."),
                io.Int.Input(
                    "times",
                    default=3,
                    min=2,
                    max=MAX_TIMES,
                    tooltip="How many times as many frames. The loop lasts as long as before.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip=(
                        "motion: pixels move along the optical flow. blend: one frame fades into the next, for"
                        " fog, fire or glitter."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    "images_out",
                    display_name="images",
                    tooltip="The frames that play; those that came in are among them, unchanged.",
                ),
                io.Float.Output(
                    "fps_out",
                    display_name="fps",
                    tooltip="The new frames per second, for Loop Check and Save Loop.",
                ),
            ],
            **supported(
                search_aliases=[
                    "RIFE",
                    "FILM",
                    "frame interpolation",
                    "VFI",
                    "smooth",
                    "slow motion",
                ]
            ),
        )

    @classmethod
    def execute(cls, images: torch.Tensor, fps: float, times: int, method: str) -> io.NodeOutput:
        frames = rgb(images)
        report = progress(len(frames) * times)
        return io.NodeOutput(interpolate_loop(frames, times, method, report), fps * times)
