"""Helpers of several nodes: pictures in the core's layout, and temporary files for the page."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

log = logging.getLogger("loopanimate")

LoopIO = io.Custom("LOOPANIMATE_LOOP")
"""A loop that draws its frames one at a time: a `loopanimate_core.video.source.FrameSource`."""


def rgb(images: torch.Tensor) -> torch.Tensor:
    """An IMAGE batch as float32 `[F, H, W, 3]`, without alpha; memory is shared."""
    return images[..., :3].float()


def temp_file(stem: str, suffix: str) -> tuple[Path, dict[str, str]]:
    """A new path in ComfyUI's temporary folder, and its description for the page.

    The name is random, because browsers cache pictures for longer than ComfyUI keeps its counter.
    """
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{stem}_{secrets.token_hex(4)}{suffix}"
    return folder / name, {"filename": name, "subfolder": "", "type": "temp"}


def progress(total: int) -> Callable[[int], None]:
    """A progress bar in the running node: call the result with how many of `total` frames are done.

    It raises ComfyUI's exception if the user has cancelled the run.
    """
    import comfy.model_management
    import comfy.utils

    bar = comfy.utils.ProgressBar(total)

    def done(count: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(count)

    return done
