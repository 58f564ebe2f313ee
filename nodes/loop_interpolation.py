"""Two nodes to put around a frame interpolation node, so that it also fills the seam."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from loopanimate_core.video.joining import close_loop, open_loop

from .common import rgb
from .schema import supported


class LoopForInterpolation(io.ComfyNode):
    """Goes before the frame interpolation."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopAnimate_LoopForInterpolation",
            display_name="Loop → Interpolation",
            category="LoopAnimate",
            description=(
                "Use before a frame interpolation node: adds the first frame at the end, so that new"
                " frames are made across the seam too. Afterwards use Interpolation → Loop."
            ),
            inputs=[io.Image.Input("images", tooltip="The frames that play.")],
            outputs=[
                io.Image.Output(
                    "images_out",
                    display_name="images",
                    tooltip="One frame more: the first one again at the end.",
                )
            ],
            **supported(search_aliases=["RIFE", "FILM", "frame interpolation", "VFI"]),
        )

    @classmethod
    def execute(cls, images: torch.Tensor) -> io.NodeOutput:
        return io.NodeOutput(close_loop(rgb(images)))


class LoopAfterInterpolation(io.ComfyNode):
    """Goes after it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopAnimate_LoopAfterInterpolation",
            display_name="Interpolation → Loop",
            category="LoopAnimate",
            description=(
                "Use after a frame interpolation node, or after a stock KSampler with a LoopAnimate"
                " model: drops the last frame, which repeats the first."
            ),
            inputs=[
                io.Image.Input(
                    "images", tooltip="Frames whose last one repeats the first, 2 or more."
                )
            ],
            outputs=[
                io.Image.Output(
                    "images_out",
                    display_name="images",
                    tooltip="The frames that play, one less.",
                )
            ],
            **supported(
                search_aliases=["RIFE", "FILM", "frame interpolation", "VFI", "drop last frame"]
            ),
        )

    @classmethod
    def execute(cls, images: torch.Tensor) -> io.NodeOutput:
        return io.NodeOutput(open_loop(rgb(images)))
