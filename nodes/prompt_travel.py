"""Prompt Travel: prompts at some frames of a loop, and what lies between them at the others."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .schema import supported

EXAMPLE = "0: a ghost bobbing up and down, 17: a ghost swaying left and right"


class PromptTravel(io.ComfyNode):
    """Schema and wiring; see `loopanimate_core.travel` and `native.travel`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopAnimate_PromptTravel",
            display_name="Prompt Travel",
            category="LoopAnimate",
            description=(
                "A prompt that changes along the loop: a text at some frames, and mixtures of two texts at the"
                " frames between. The last text goes over into the first one, so that the loop stays closed."
            ),
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder, from Load LoopAnimate."),
                io.String.Input(
                    "text",
                    default=EXAMPLE,
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip=(
                        "A frame number, a colon and what moves there, separated by commas or line breaks. Frames count"
                        " from 0 and are those that the model draws: a loop of 35 plays 0 to 33. One text alone is"
                        " a plain prompt."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning",
                    display_name="conditioning",
                    tooltip="For positive (or negative) of Build Loop Conditions.",
                )
            ],
            **supported(search_aliases=["prompt schedule", "fizz", "keyframes", "prompt travel"]),
        )

    @classmethod
    def execute(cls, clip: Any, text: str) -> io.NodeOutput:
        from .native.travel import encode_travel

        return io.NodeOutput(encode_travel(clip, text))
