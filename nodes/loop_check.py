"""Loop Check: whether a clip plays as a loop, and if not, why not."""

from __future__ import annotations

import json
from typing import Any

import torch
from comfy_api.latest import io

from loopanimate_core.check import ImageEncoder, LoopReport, LoopThresholds, check_loop
from loopanimate_core.check.chart import seam_chart
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import save_picture
from loopanimate_core.picture.sheet import draw_sheet, plan_sheet

from .common import NoImageEncoder, log, rgb, temp_file
from .inputs import fps_input
from .schema import supported

ENCODED_AT_ONCE = 16  # frames; ComfyUI moves the whole batch it is given to the device


class LoopCheck(io.ComfyNode):
    """Schema and wiring; the measuring is in `loopanimate_core.check`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        limits = LoopThresholds()
        return io.Schema(
            node_id="LoopAnimate_LoopCheck",
            display_name="Loop Check",
            category="LoopAnimate",
            description=(
                "Plays the clip in the node and checks whether its end meets its start. If not, it says what"
                " is visible at the seam."
            ),
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input("images", tooltip="The frames that play, in order, 4 or more."),
                fps_input("Playback speed in frames per second, for the player and the duration."),
                io.Float.Input(
                    "jump_ratio",
                    default=limits.jump_ratio,
                    min=1.0,
                    max=20.0,
                    step=0.1,
                    tooltip=(
                        "How many times larger the change from the last frame to the first may be than the"
                        " largest of the four changes around it. Higher is more tolerant."
                    ),
                ),
                io.Float.Input(
                    "frozen_change",
                    default=limits.frozen_change,
                    min=0.1,
                    max=64.0,
                    step=0.1,
                    tooltip=(
                        "A clip that never differs from its first frame by more than this many grey levels"
                        " (of 255) counts as frozen. Higher asks for more motion."
                    ),
                ),
                io.Combo.Input(
                    "on_fail",
                    options=["warn", "stop"],
                    default="warn",
                    tooltip=(
                        "warn: show the verdict and continue. stop: end the run here with the reason, so"
                        " that no later node uses a bad loop."
                    ),
                ),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="The still picture: also measures how close the first frame is to it.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip=(
                        "Adds CLIP similarities: between neighbouring frames, between both ends, and with"
                        " the reference if there is one."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output("images_out", display_name="images", tooltip="The same frames."),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="All measurements and the verdict, as JSON.",
                ),
                io.Boolean.Output(
                    "passed", display_name="passed", tooltip="True if the loop is seamless."
                ),
                io.Image.Output(
                    "chart",
                    display_name="chart",
                    tooltip="The change from each frame to the next as bars, the seam in the middle.",
                ),
            ],
            **supported(search_aliases=["seam check", "seamless", "loop player"]),
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        fps: float,
        jump_ratio: float,
        frozen_change: float,
        on_fail: str,
        reference: torch.Tensor | None = None,
        clip_vision: Any = None,
    ) -> io.NodeOutput:
        if on_fail not in ("warn", "stop"):
            raise LoopAnimateError(f"on_fail must be 'warn' or 'stop', got {on_fail!r}")
        frames = rgb(images)
        report = check_loop(
            frames,
            fps=fps,
            reference=None if reference is None else rgb(reference)[0],
            image_encoder=_encoder(clip_vision),
            thresholds=LoopThresholds(jump_ratio=jump_ratio, frozen_change=frozen_change),
        )
        if not report.passed:
            if on_fail == "stop":
                raise LoopAnimateError(
                    f"{report.summary[:-1]}; set on_fail to 'warn' to continue anyway."
                )
            log.warning("Loop Check: %s", report.summary)
        chart = seam_chart(report)
        shown = _shown(frames, report, chart) | {"sampled": _sampled(cls.hidden)}
        return io.NodeOutput(
            images,
            json.dumps(report.to_dict(), indent=2, allow_nan=False),
            report.passed,
            chart[None],
            ui={"loopanimate_check": [shown]},
        )


def _encoder(clip_vision: Any) -> ImageEncoder | None:
    """ComfyUI's CLIP_VISION as pictures `[N, H, W, 3]` to embeddings `[N, D]`; None without one."""
    if clip_vision is None or isinstance(clip_vision, NoImageEncoder):
        return None

    def encode(pictures: torch.Tensor) -> torch.Tensor:
        batches = pictures.split(ENCODED_AT_ONCE)
        return torch.cat([clip_vision.encode_image(batch).image_embeds.cpu() for batch in batches])

    return encode


def _sampled(hidden: Any) -> dict[str, Any]:
    """`closing` and `start` of the Loop Sampler that the frames come from, as far as the prompt says them.

    The page needs them for its advice: "set closing to tie" helps nobody whose closing is tie.
    """
    prompt = getattr(hidden, "prompt", None) or {}
    waiting, seen, found = [getattr(hidden, "unique_id", None)], set(), {}
    while waiting:
        name = waiting.pop(0)
        if name in seen or name not in prompt:
            continue
        seen.add(name)
        inputs = prompt[name].get("inputs", {})
        for key, kind in (
            ("closing", "LoopAnimate_LoopSampler"),
            ("start", "LoopAnimate_LoopSampler"),
            ("start", "LoopAnimate_BuildLoopConditions"),
        ):
            value = inputs.get(key) if prompt[name].get("class_type") == kind else None
            if value and not isinstance(value, list):  # 0 leaves it to the next node
                found.setdefault(key, value)
        waiting += [value[0] for value in inputs.values() if isinstance(value, list) and value]
    return found


def _shown(frames: torch.Tensor, report: LoopReport, chart: torch.Tensor) -> dict[str, Any]:
    """What the page shows in the node; writes two pictures to the temporary folder."""
    layout = plan_sheet(*frames.shape[:3])
    sheet_path, sheet = temp_file("loopanimate_check", ".jpg")
    save_picture(draw_sheet(frames, layout), sheet_path)
    chart_path, chart_address = temp_file("loopanimate_chart", ".png")
    save_picture(chart, chart_path)
    return {
        "sheet": sheet,
        "columns": layout.columns,
        "frames": layout.frames,
        "width": layout.width_px,
        "height": layout.height_px,
        "fps": report.fps,
        "passed": report.passed,
        "summary": report.summary,
        "reasons": list(report.reasons),
        "report": report.to_dict(),
        "chart": chart_address,
    }
