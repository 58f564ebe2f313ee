"""Helpers of several nodes: pictures in the core's layout, and temporary files for the page."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.shapes import Shape

log = logging.getLogger("loopanimate")

LoopIO = io.Custom("LOOPANIMATE_LOOP")
"""A loop that draws its frames one at a time: a `loopanimate_core.video.frame_source.FrameSource`."""


class NoImageEncoder:
    """The CLIP_VISION of a model that has no image encoder, such as PIA's.

    Attributes:
        loopanimate_shapes: the sizes that the model was trained on.
    """

    def __init__(self, channels: int, shapes: tuple[Shape, ...]) -> None:
        self.channels = channels
        self.loopanimate_shapes = shapes

    def image_embeds(self) -> torch.Tensor:
        """Zeros `[1, 1, D]`, which the model does not read."""
        return torch.zeros(1, 1, self.channels)

    def encode_image(self, *_args: Any, **_options: Any) -> Any:
        """Raises LoopAnimateError: other nodes need a real image encoder."""
        raise LoopAnimateError(
            "this model has no image encoder; connect Load CLIP Vision with a CLIP ViT-L/14 file instead"
        )


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
