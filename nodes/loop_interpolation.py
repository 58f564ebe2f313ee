"""Two nodes around any frame-interpolation node, which knows nothing of loops."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from loopanimate_core.video.joining import close_loop, open_loop

from .common import rgb
from .schema import schema


class LoopForInterpolation(io.ComfyNode):
    """Goes before the frame interpolation."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LoopForInterpolation",
            "Loop → Interpolation",
            description=(
                "Put before a frame-interpolation node: adds the first frame at the end, so that"
                " new frames are made across the seam too. Afterwards: Interpolation → Loop."
            ),
            search_aliases=["RIFE", "FILM", "frame interpolation", "VFI"],
            inputs=[io.Image.Input("images", tooltip="The frames that play.")],
            outputs=[
                io.Image.Output(
                    "images_out", "images", tooltip="One frame more: the first again at the end."
                )
            ],
        )

    @classmethod
    def execute(cls, images: torch.Tensor) -> io.NodeOutput:
        return io.NodeOutput(close_loop(rgb(images)))


class LoopAfterInterpolation(io.ComfyNode):
    """Goes after it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LoopAfterInterpolation",
            "Interpolation → Loop",
            description=(
                "Put after a frame-interpolation node, or after a stock KSampler with a LoopAnimate"
                " model: drops the last frame, which is the first again."
            ),
            search_aliases=["RIFE", "FILM", "frame interpolation", "VFI", "drop last frame"],
            inputs=[
                io.Image.Input(
                    "images", tooltip="Frames whose last one is the first again, 2 or more."
                )
            ],
            outputs=[
                io.Image.Output(
                    "images_out", "images", tooltip="The frames that play, one frame fewer."
                )
            ],
        )

    @classmethod
    def execute(cls, images: torch.Tensor) -> io.NodeOutput:
        return io.NodeOutput(open_loop(rgb(images)))
