"""Salient Mask: finds the object of a picture, which moves while the background stays still."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import fit_pixels
from loopanimate_core.picture.saliency import mask_preview, salient_mask

from .common import rgb
from .folders import NONE, files_of, model_path
from .schema import supported

METHODS = ("auto", "grabcut", "onnx")
MODELS = "loopanimate_saliency"


class SalientMask(io.ComfyNode):
    """Schema and wiring; the methods are in `loopanimate_core.picture.saliency`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopAnimate_SalientMask",
            display_name="Salient Mask",
            category="LoopAnimate",
            description=(
                "Finds the object that should move while the background stays still: by transparency,"
                " with a network, or with GrabCut."
            ),
            inputs=[
                io.Image.Input("image", tooltip="One or more pictures; each gets its own mask."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="auto",
                    tooltip=(
                        "auto: transparency if there is any, otherwise a network. grabcut: by colour"
                        " alone, good for plain and blurred backgrounds. onnx: the network chosen"
                        " below, or the small built-in one if none is chosen."
                    ),
                ),
                io.Float.Input(
                    "threshold",
                    default=0.5,
                    min=0.01,
                    max=0.99,
                    step=0.01,
                    tooltip=(
                        "A pixel belongs to the object if its opacity or network score (0 to 1) is at"
                        " least this. Higher makes the object smaller. Not used by GrabCut."
                    ),
                ),
                io.Int.Input(
                    "grow_px",
                    default=0,
                    min=-256,
                    max=256,
                    tooltip="Grows the object by this many pixels; negative values shrink it.",
                ),
                io.Combo.Input(
                    "onnx_model",
                    options=[NONE, *files_of(MODELS)],
                    default=NONE,
                    tooltip=(
                        "A salient-object network (U²-Net, IS-Net, BiRefNet …) from the folder"
                        " models/loopanimate_saliency. none: the small built-in one."
                    ),
                ),
                io.Mask.Input(
                    "alpha",
                    optional=True,
                    tooltip="The MASK of Load Image, 1 = transparent. An empty mask is ignored.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    "mask", display_name="mask", tooltip="1 on the object, 0 elsewhere."
                ),
                io.Image.Output(
                    "preview",
                    display_name="preview",
                    tooltip="The picture with its background darkened.",
                ),
            ],
            **supported(
                search_aliases=["segmentation", "background removal", "U2Net", "rembg", "GrabCut"]
            ),
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        method: str,
        threshold: float,
        grow_px: int,
        onnx_model: str,
        alpha: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        if method not in METHODS:
            raise LoopAnimateError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
        pictures, opaqueness = rgb(image), _opaqueness(image, alpha)
        masks = torch.stack(
            [
                salient_mask(
                    picture,
                    alpha=None if opaqueness is None else opaqueness[index % len(opaqueness)],
                    method=method,
                    model_path=None if onnx_model == NONE else model_path(MODELS, onnx_model),
                    threshold=threshold,
                    grow_px=grow_px,
                )
                for index, picture in enumerate(pictures)
            ]
        )
        return io.NodeOutput(masks, mask_preview(pictures, masks))


def _opaqueness(image: torch.Tensor, alpha: torch.Tensor | None) -> torch.Tensor | None:
    """Masks `[N, H, W]`, 1 = opaque, at the pictures' size; None if nothing is transparent.

    Load Image gives a picture without transparency an empty mask of 64 x 64 pixels.
    """
    height, width, channels = image.shape[1:]
    if alpha is not None:
        transparent = alpha if alpha.ndim == 3 else alpha[None]
    elif channels == 4:
        transparent = 1 - image[..., 3]
    else:
        return None
    if not transparent.any():
        return None
    sized = [fit_pixels(each.float()[..., None], height, width, "stretch") for each in transparent]
    return 1 - torch.stack(sized)[..., 0]
