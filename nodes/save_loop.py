"""Save Loop: a file whose seam survives the encoder, and which restores its graph when dropped."""

from __future__ import annotations

import os
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.sheet import shrink_frames
from loopanimate_core.video import write_video
from loopanimate_core.video.filenames import expand_prefix
from loopanimate_core.video.formats import FORMATS
from loopanimate_core.video.shapes import PRESETS, apply_preset
from loopanimate_core.video.workflow_tags import workflow_tags

from .common import log, temp_file
from .schema import schema

# Formats by the suffix they get; apng as .png, because the page looks into no file called .apng.
SUFFIXES = {name: row.suffixes[0] for name, row in FORMATS.items()} | {"apng": ".png"}
SHOWN_AS_THEY_ARE = ("mp4", "webm", "webm-av1", "webp", "apng")
PREVIEW_PX = 384


class SaveLoop(io.ComfyNode):
    """Schema and wiring; the encodings are in `loopanimate_core.video`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SaveLoop",
            "Save Loop",
            description=(
                "Saves the loop so that it stays seamless as a file, in the shape of a wallpaper or"
                " sticker, with the workflow inside: drop the file on the canvas to get it back."
            ),
            search_aliases=["save video", "export loop", "wallpaper", "gif", "webp", "mp4"],
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip=(
                        "The frames that play, without the first again at the end. A fourth channel"
                        " is transparency."
                    ),
                ),
                io.String.Input(
                    "filename_prefix",
                    default="loopanimate/loop",
                    tooltip=(
                        "Folder and name within ComfyUI's output folder; a number follows."
                        " %date:yyyy-MM-dd%, %picture_name%, %width% and %height% are filled in."
                    ),
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="mp4",
                    tooltip=(
                        "mp4 plays everywhere; webm and webm-av1 are small; webp, apng and gif are"
                        " pictures; prores, ffv1 and png (a folder) are for editing. Transparency:"
                        " webm, webp, avif, apng, gif, png, prores, ffv1. Back from a drop on the"
                        " canvas: mp4, webm, webm-av1, webp, apng, prores and png."
                    ),
                ),
                io.Float.Input(
                    "fps",
                    default=8.0,
                    min=1.0,
                    max=120.0,
                    step=0.5,
                    tooltip="Playing speed in frames per second.",
                ),
                io.Int.Input(
                    "quality",
                    default=-1,
                    min=-1,
                    max=100,
                    tooltip=(
                        "1 to 100, the same scale for every format; -1 = 75. Lower is smaller, and"
                        " the seam shows sooner. Lossless formats ignore it."
                    ),
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="as it is",
                    tooltip=(
                        "Cuts the middle of this shape out of the frames, without enlarging it."
                        " sticker: a square of at most 512 pixels; save it as webp."
                    ),
                ),
                io.Int.Input(
                    "repeats",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip=(
                        "How often the loop is in the file. 0 = the format's default: mp4 lasts at"
                        " least 10 seconds, because players stutter where a file starts again; the"
                        " others hold the loop once."
                    ),
                ),
                io.String.Input(
                    "picture_name",
                    optional=True,
                    force_input=True,
                    tooltip="Name of the source picture, to be found in the file's name.",
                ),
            ],
            outputs=[
                io.Image.Output("images_out", "images", tooltip="The frames as they came in."),
                io.String.Output("path", tooltip="The file that was written (a folder for png)."),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        filename_prefix: str,
        format: str,
        fps: float,
        quality: int,
        preset: str,
        repeats: int,
        picture_name: str | None = None,
    ) -> io.NodeOutput:
        if format not in SUFFIXES:
            raise LoopAnimateError(f"format {format!r} must be one of {', '.join(SUFFIXES)}")
        frames = apply_preset(images, preset)
        prefix = expand_prefix(filename_prefix, picture_name, datetime.now())
        folder, stem, subfolder = _place(prefix, *frames.shape[1:3])
        path = folder / f"{stem}{SUFFIXES[format]}"
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            write_video(
                frames.float(),
                path,
                fps=fps,
                format=format,
                quality=None if quality == -1 else quality,
                repeats=repeats or None,
                metadata=_metadata(cls.hidden),
            )
        for warning in warned:
            log.warning("Save Loop: %s", warning.message)
        log.info("Save Loop: %s", path)
        saved = {"filename": path.name, "subfolder": subfolder, "type": "output"}
        shown = saved if format in SHOWN_AS_THEY_ARE else _preview(frames, fps)
        described = saved | {"format": format, "frames": len(frames), "fps": fps}
        ui = {"images": [shown], "animated": [True], "loopanimate_saved": [described]}
        return io.NodeOutput(images, str(path), ui=ui)


def _place(prefix: str, height_px: int, width_px: int) -> tuple[Path, str, str]:
    """Folder, file name without suffix, and subfolder of the next file of a prefix.

    Raises:
        LoopAnimateError: the prefix is empty, leads out of the output folder, or cannot be made.
    """
    output = folder_paths.get_output_directory()
    inner = os.path.normpath(prefix)
    drive, _ = os.path.splitdrive(inner)
    outside = drive or os.path.isabs(inner) or inner.split(os.sep)[0] == ".."
    if outside or not inner.strip(". "):
        raise LoopAnimateError(
            f"filename_prefix {prefix!r} must name a file within ComfyUI's output folder"
        )
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            inner, output, width_px, height_px
        )
    except OSError as error:
        raise LoopAnimateError(
            f"the folder of filename_prefix {prefix!r} cannot be made: {error.strerror or error}"
        ) from error
    return Path(folder), f"{name}_{counter:05}_", subfolder


def _metadata(hidden: Any) -> dict[str, str]:
    from comfy.cli_args import args

    if args.disable_metadata or hidden is None:
        return {}
    return workflow_tags(hidden.prompt, hidden.extra_pnginfo)


def _preview(frames: torch.Tensor, fps: float) -> dict[str, str]:
    """A small animated picture in the temporary folder, for files that no page can play."""
    path, address = temp_file("loopanimate_saved", ".webp")
    write_video(shrink_frames(frames, PREVIEW_PX), path, fps=fps, quality=60)
    return address
