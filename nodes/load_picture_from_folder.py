"""Load Picture From Folder: one picture per run, for batches."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from loopanimate_core.picture.folder import BUNDLED, list_pictures, pick_picture
from loopanimate_core.picture.images import load_picture, save_picture
from loopanimate_core.picture.sheet import shrink_frames

from .common import temp_file
from .schema import supported

OURS = "LoopAnimate pictures"
INPUT = "input"
PREVIEW_PX = 384


class LoadPictureFromFolder(io.ComfyNode):
    """Schema and wiring; the pictures are listed by `loopanimate_core.picture.folder`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        subfolders = [f"{INPUT}/{name}" for name in folder_paths.get_input_subfolders()]
        return io.Schema(
            node_id="LoopAnimate_LoadPictureFromFolder",
            display_name="Load Picture From Folder",
            category="LoopAnimate",
            description=(
                "Loads one picture from a folder by its number, sorted by name. With 'increment' each"
                " run loads the next one; after the last picture the run stops with a message."
            ),
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=[OURS, INPUT, *subfolders],
                    default=OURS,
                    tooltip=(
                        "LoopAnimate's own pictures, ComfyUI's input folder, or a folder inside it"
                        " (without its subfolders)."
                    ),
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=999_999,
                    control_after_generate=True,
                    tooltip=(
                        "Number of the picture, from 0, sorted by name. Choose 'increment' below and"
                        " queue as many runs as there are pictures."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    "image",
                    display_name="image",
                    tooltip="The picture, upright and in sRGB; transparent parts are white.",
                ),
                io.Mask.Output(
                    "mask",
                    display_name="mask",
                    tooltip="Its transparency, as in Load Image: 1 = transparent.",
                ),
                io.String.Output(
                    "name",
                    display_name="name",
                    tooltip="The file name without extension, for picture_name in Save Loop.",
                ),
                io.Int.Output(
                    "count", display_name="count", tooltip="Number of pictures in the folder."
                ),
            ],
            **supported(search_aliases=["batch", "load images", "directory", "folder"]),
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, index: int | None = None) -> list[str]:
        """Names, sizes and times of the files: a picture that changes on disk is loaded again."""
        pictures = pictures_of(folder or OURS)
        chosen = pictures if index is None else pictures[index : index + 1]  # none past the end
        marks = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in chosen]
        return [str(len(pictures)), *marks]

    @classmethod
    def execute(cls, folder: str, index: int) -> io.NodeOutput:
        pictures = pictures_of(folder)
        picture = load_picture(pick_picture(pictures, index, folder))
        transparent = torch.zeros(picture.rgb.shape[:2])
        if picture.alpha is not None:
            transparent = 1 - picture.alpha
        shown = picture.over()[None]
        ui = {"images": [_preview(shown)]}
        return io.NodeOutput(shown, transparent[None], picture.stem, len(pictures), ui=ui)


def _preview(picture: torch.Tensor) -> dict[str, str]:
    """A small copy in the temporary folder, which the page shows in the node."""
    path, address = temp_file("loopanimate_picture", ".jpg")
    save_picture(shrink_frames(picture, PREVIEW_PX)[0], path)
    return address


def pictures_of(folder: str) -> list[Path]:
    """The pictures of a folder as the node names it, in the order of their numbers."""
    if folder == OURS:
        return list_pictures(BUNDLED)
    top = Path(folder_paths.get_input_directory())
    first, _, subfolder = folder.partition("/")
    # Any other text, even an absolute path, is looked up inside the input folder and refused there.
    return list_pictures(top, subfolder if first == INPUT else folder)
