"""Save Loop: a file that stays seamless, and restores its workflow when dropped on the canvas."""

from __future__ import annotations

import itertools
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
from loopanimate_core.video.frame_source import FrameSource, Mapped
from loopanimate_core.video.shapes import PRESETS, apply_preset
from loopanimate_core.video.sound import add_sound, require_sound
from loopanimate_core.video.workflow_tags import workflow_tags

from .common import LoopIO, log, progress, temp_file
from .inputs import fps_input
from .schema import supported

# The suffix of each format; .png for apng, because ComfyUI's page does not read workflows from .apng files.
SUFFIXES = {name: row.suffixes[0] for name, row in FORMATS.items()} | {"apng": ".png"}
PLAYABLE_IN_PAGE = ("mp4", "webm", "webm-av1", "webp", "apng")
PREVIEW_PX = 384


class SaveLoop(io.ComfyNode):
    """Schema and wiring; the encoding is in `loopanimate_core.video`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopAnimate_SaveLoop",
            display_name="Save Loop",
            category="LoopAnimate",
            description=(
                "Saves the loop as a file that stays seamless, cropped to the shape of a wallpaper or"
                " sticker if you like. The workflow is inside: drop the file on the canvas to get it back."
            ),
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip=(
                        "The frames that play, without the first one again at the end. A fourth channel"
                        " is transparency."
                    ),
                ),
                io.String.Input(
                    "filename_prefix",
                    default="loopanimate/loop",
                    tooltip=(
                        "Folder and name inside ComfyUI's output folder; a number is added."
                        " %date:yyyy-MM-dd%, %picture_name%, %width% and %height% are replaced."
                    ),
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default="mp4",
                    tooltip=(
                        "mp4 plays everywhere; webm and webm-av1 are small; webp, apng and gif are"
                        " pictures; prores, ffv1 and png (a folder) are for editing. Transparency:"
                        " webm, webp, avif, apng, gif, png, prores, ffv1. The workflow can be restored"
                        " from mp4, webm, webm-av1, webp, apng, prores and png."
                    ),
                ),
                fps_input("Playback speed in frames per second."),
                io.Int.Input(
                    "quality",
                    default=-1,
                    min=-1,
                    max=100,
                    tooltip=(
                        "1 to 100, the same scale for every format; -1 = 75. Lower makes smaller files"
                        " with a more visible seam. Lossless formats ignore it."
                    ),
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="as it is",
                    tooltip=(
                        "Crops the centre of the frames to this shape, without enlarging. sticker: a"
                        " square of at most 512 pixels; save it as webp."
                    ),
                ),
                io.Int.Input(
                    "repeats",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip=(
                        "How often the loop is in the file. 0: the format's default. mp4 lasts at least"
                        " 10 seconds, because players stutter when a file restarts; the others hold the"
                        " loop once."
                    ),
                ),
                io.String.Input(
                    "picture_name",
                    optional=True,
                    force_input=True,
                    tooltip="Name of the source picture, used in the name of the file.",
                ),
                LoopIO.Input(
                    "loop",
                    optional=True,
                    tooltip=(
                        "From Detail Transfer: its frames are saved instead of images, drawn one at a time"
                        " while the file is written, so a 4K loop needs little memory."
                    ),
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Makes the loop transparent where the mask is 0: one mask for all frames, or one for each."
                        " For webm, webp, avif, apng, gif, png, prores and ffv1."
                    ),
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip=(
                        "Sound for mp4, webm, webm-av1 and prores. It starts again until the file ends. Most players"
                        " leave a gap where a file restarts, so choose repeats for a whole length of the sound."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    "images_out", display_name="images", tooltip="The same frames as the input."
                ),
                io.String.Output(
                    "path", display_name="path", tooltip="The saved file (a folder for png)."
                ),
            ],
            **supported(
                search_aliases=["save video", "export loop", "wallpaper", "gif", "webp", "mp4"]
            ),
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
        loop: FrameSource | None = None,
        mask: torch.Tensor | None = None,
        audio: dict[str, Any] | None = None,
    ) -> io.NodeOutput:
        if format not in SUFFIXES:
            raise LoopAnimateError(f"format must be one of {', '.join(SUFFIXES)}, got {format!r}")
        if audio is not None:
            require_sound(FORMATS[format])
        if loop is None:
            seen = images if mask is None else _cut_out(images, mask)
            frames = apply_preset(seen, preset).float()
        elif mask is not None:
            raise LoopAnimateError(
                "mask cuts out images, not loop; switch transparent on in Detail Transfer instead"
            )
        else:
            frames = _streamed(loop, preset, _draws(format, repeats, len(loop), fps))
        prefix = expand_prefix(filename_prefix, picture_name, datetime.now())
        folder, stem, subfolder = _place(prefix, *frames[0].shape[:2])
        path = folder / f"{stem}{SUFFIXES[format]}"
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            write_video(
                frames,
                path,
                fps=fps,
                format=format,
                quality=None if quality == -1 else quality,
                repeats=repeats or None,
                metadata=_metadata(cls.hidden),
            )
        if audio is not None:
            played = _draws(format, repeats, len(frames), fps)
            add_sound(
                path, FORMATS[format], audio["waveform"][0], audio["sample_rate"], played / fps
            )
        for warning in warned:
            log.warning("Save Loop: %s", warning.message)
        log.info("Save Loop: %s", path)
        saved = {"filename": path.name, "subfolder": subfolder, "type": "output"}
        shown = saved if format in PLAYABLE_IN_PAGE else _preview(frames, fps)
        described = saved | {"format": format, "frames": len(frames), "fps": fps}
        ui = {"images": [shown], "animated": [True], "loopanimate_saved": [described]}
        return io.NodeOutput(images, str(path), ui=ui)


def _cut_out(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Images `[P, H, W, 4]` that are transparent where the mask, of one frame or of P, is 0."""
    mask = mask.reshape(-1, *mask.shape[-2:]).float()
    if len(mask) not in (1, len(images)):
        raise LoopAnimateError(
            f"mask must have 1 frame or as many as images, {len(images)}, got {len(mask)}"
        )
    size = tuple(images.shape[1:3])
    if mask.shape[-2:] != size:
        mask = torch.nn.functional.interpolate(mask[:, None], size, mode="bilinear")[:, 0]
    alpha = mask.to(images).expand(len(images), -1, -1)[..., None]
    if images.shape[-1] == 4:
        alpha = alpha * images[..., 3:]
    return torch.cat([images[..., :3], alpha], dim=-1)


def _streamed(loop: FrameSource, preset: str, draws: int) -> FrameSource:
    """The frames of a loop in the preset's shape; each one drawn moves the node's progress bar."""
    done, count = progress(draws), itertools.count(1)

    def shaped(_index: int, frame: torch.Tensor) -> torch.Tensor:
        done(next(count))
        return apply_preset(frame[None], preset)[0]

    return Mapped(loop, shaped)


def _draws(format: str, repeats: int, frames: int, fps: float) -> int:
    """How many frames are drawn for a file."""
    row = FORMATS[format]
    return frames * (repeats or row.automatic_repeats(frames, fps))


def _place(prefix: str, height_px: int, width_px: int) -> tuple[Path, str, str]:
    """Folder, file name without suffix, and subfolder of the next file of a prefix.

    Raises:
        LoopAnimateError: the prefix is empty or leads out of the output folder, or its folder cannot be made.
    """
    output = folder_paths.get_output_directory()
    inner = os.path.normpath(prefix)
    drive, _ = os.path.splitdrive(inner)
    outside = drive or os.path.isabs(inner) or inner.split(os.sep)[0] == ".."
    if outside or not inner.strip(". "):
        raise LoopAnimateError(
            f"filename_prefix must name a file inside ComfyUI's output folder, got {prefix!r}"
        )
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            inner, output, width_px, height_px
        )
    except OSError as error:
        raise LoopAnimateError(
            f"cannot make the folder of filename_prefix {prefix!r}: {error.strerror or error}"
        ) from error
    return Path(folder), f"{name}_{counter:05}_", subfolder


def _metadata(hidden: Any) -> dict[str, str]:
    from comfy.cli_args import args

    if args.disable_metadata or hidden is None:
        return {}
    return workflow_tags(hidden.prompt, hidden.extra_pnginfo)


def _preview(frames: FrameSource, fps: float) -> dict[str, str]:
    """A small animated picture in the temporary folder, for formats that the page cannot play."""
    path, address = temp_file("loopanimate_saved", ".webp")
    small = torch.cat([shrink_frames(frames[i][None], PREVIEW_PX) for i in range(len(frames))])
    write_video(small, path, fps=fps, quality=60)
    return address
