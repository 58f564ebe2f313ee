"""Chain Loops: several loops of one picture as one long clip."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from loopanimate_core.video.joining import chain_loops

from .common import rgb
from .schema import schema

MOST = 8


class ChainLoops(io.ComfyNode):
    """Schema and wiring; see `loopanimate_core.video.joining`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ChainLoops",
            "Chain Loops",
            description=(
                "Plays several loops one after the other as one longer loop. Loops of the same"
                " picture all begin and end with it, so they join without a seam."
            ),
            search_aliases=["concatenate", "join clips", "long loop"],
            inputs=[
                io.Image.Input(
                    f"loop_{number}",
                    optional=number > 2,
                    tooltip=f"The frames that play {_PLACES[number - 1]}; all loops of one size.",
                )
                for number in range(1, MOST + 1)
            ],
            outputs=[io.Image.Output("images", tooltip="All frames, in order of the inputs.")],
        )

    @classmethod
    def execute(cls, **loops: torch.Tensor | None) -> io.NodeOutput:
        names = [f"loop_{number}" for number in range(1, MOST + 1)]
        joined = [rgb(loop) for name in names if (loop := loops.get(name)) is not None]
        return io.NodeOutput(chain_loops(joined))


_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
