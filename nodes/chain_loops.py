"""Chain Loops: several loops of one picture as one long clip."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from loopanimate_core.video.joining import chain_loops

from .common import rgb
from .schema import supported

PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


class ChainLoops(io.ComfyNode):
    """Schema and wiring; see `loopanimate_core.video.joining`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopAnimate_ChainLoops",
            display_name="Chain Loops",
            category="LoopAnimate",
            description=(
                "Plays several loops one after the other as one longer loop. Loops of the same picture"
                " all start and end with it, so they join without a seam."
            ),
            inputs=[
                io.Image.Input(
                    f"loop_{number}",
                    optional=number > 2,
                    tooltip=f"The frames that play {place}. All loops must have the same size.",
                )
                for number, place in enumerate(PLACES, start=1)
            ],
            outputs=[
                io.Image.Output(
                    "images",
                    display_name="images",
                    tooltip="All frames, in the order of the inputs.",
                )
            ],
            **supported(search_aliases=["concatenate", "join clips", "long loop"]),
        )

    @classmethod
    def execute(cls, **loops: torch.Tensor | None) -> io.NodeOutput:
        names = [f"loop_{number}" for number in range(1, len(PLACES) + 1)]
        joined = [rgb(loop) for name in names if (loop := loops.get(name)) is not None]
        return io.NodeOutput(chain_loops(joined))
