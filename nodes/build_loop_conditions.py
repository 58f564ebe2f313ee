"""Build Loop Conditions: puts a picture and its mask into the prompts, and makes the latent to sample."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from loopanimate_core.conditions import DEFAULT_MOTION, MOTIONS, check_motion, mask_to_latent
from loopanimate_core.encoders.image import resize_for_clip
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import fit_mask, fit_picture
from loopanimate_core.picture.shapes import nearest_shape

from .common import NoImageEncoder
from .schema import supported

MIN_FRAMES, MAX_FRAMES = 2, 1000  # a KSampler also takes 2; Loop Sampler needs 3


class BuildLoopConditions(io.ComfyNode):
    """Schema and wiring; `native.model.LoopModel` reads what is stored in the CONDITIONING."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopAnimate_BuildLoopConditions",
            display_name="Build Loop Conditions",
            category="LoopAnimate",
            description=(
                "Adds the picture and the mask to both prompts, and makes the latent that Loop Sampler"
                " (or any KSampler) turns into a loop."
            ),
            inputs=[
                io.Conditioning.Input(
                    "positive", tooltip="What moves and how, from CLIP Text Encode."
                ),
                io.Conditioning.Input(
                    "negative", tooltip="What should not appear; the text may be empty."
                ),
                io.ClipVision.Input(
                    "clip_vision", tooltip="The image encoder, from Load LoopAnimate."
                ),
                io.Vae.Input("vae", tooltip="The VAE of the same model."),
                io.Image.Input(
                    "image",
                    tooltip=(
                        "The still picture; the first one of a batch. It is resized, and cropped to the"
                        " centre if its shape differs."
                    ),
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=4096,
                    step=8,
                    tooltip=(
                        "Width of the loop in pixels, a multiple of 8. 0: of the sizes the model was"
                        " trained on, the one whose shape is nearest to the picture's."
                    ),
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=4096,
                    step=8,
                    tooltip="Height of the loop in pixels, a multiple of 8. 0: as for width.",
                ),
                io.Int.Input(
                    "frames",
                    default=35,
                    min=MIN_FRAMES,
                    max=MAX_FRAMES,
                    tooltip=(
                        "Frames of the loop, with the first one counted again at the end: one less will"
                        " play. Models are trained on 15, 21 and 35."
                    ),
                ),
                io.Float.Input(
                    "start",
                    default=1.0,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    tooltip=(
                        "Share of the noise that sampling starts with. Less stays closer to the picture"
                        " and moves less. Loop Sampler uses it; with a KSampler set denoise instead."
                    ),
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "The object that moves (1 = object), from Salient Mask. Without a mask the whole"
                        " picture may move. PIA's models do not read it."
                    ),
                ),
                io.Combo.Input(
                    "motion",
                    options=list(MOTIONS),
                    default=DEFAULT_MOTION,
                    optional=True,
                    tooltip=(
                        "How far frames may go from the picture. Only models with PIA's conditioning read"
                        " it; with others use start."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "positive_out",
                    display_name="positive",
                    tooltip="The positive prompt with the picture.",
                ),
                io.Conditioning.Output(
                    "negative_out",
                    display_name="negative",
                    tooltip="The negative prompt with the picture.",
                ),
                io.Latent.Output(
                    "latent",
                    display_name="latent",
                    tooltip="The still picture in every frame, ready to be sampled.",
                ),
            ],
            **supported(search_aliases=["image to video", "loop", "first frame"]),
        )

    @classmethod
    def execute(
        cls,
        positive: list[Any],
        negative: list[Any],
        clip_vision: Any,
        vae: Any,
        image: torch.Tensor,
        width: int,
        height: int,
        frames: int,
        start: float,
        mask: torch.Tensor | None = None,
        motion: str = DEFAULT_MOTION,
    ) -> io.NodeOutput:
        import node_helpers

        if not MIN_FRAMES <= frames <= MAX_FRAMES:
            raise LoopAnimateError(
                f"frames must be between {MIN_FRAMES} and {MAX_FRAMES}, got {frames}"
            )
        check_motion(motion)
        height, width = _loop_size(clip_vision, image, height, width)
        picture = fit_picture(image[0, ..., :3].float().cpu(), height, width)
        still = vae.encode(picture[None])
        if still.ndim != 4 or still.shape[1] != 4:
            raise LoopAnimateError(
                f"the VAE's latents have the shape {list(still.shape)}; connect the VAE of Load LoopAnimate"
            )
        conditions = {
            "loop_still": still[:1],
            "loop_mask": _latent_mask(mask, image, still, height, width),
            "loop_image_embeds": embed_picture(clip_vision, picture),
            "loop_motion": motion,
        }
        latent = {"samples": still[:1].repeat(frames, 1, 1, 1), "loop_start": start}
        return io.NodeOutput(
            node_helpers.conditioning_set_values(positive, conditions),
            node_helpers.conditioning_set_values(negative, conditions),
            latent,
        )


def _loop_size(clip_vision: Any, image: torch.Tensor, height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels; a 0 is replaced by that of the model's shape nearest to the picture."""
    from .native.encoders import shapes_of

    if height and width:
        return height, width
    shapes = shapes_of(clip_vision)
    if not shapes:
        raise LoopAnimateError(
            "width and height must be set, because the sizes of this clip_vision's model are not known;"
            " 0 needs the clip_vision of Load LoopAnimate"
        )
    shape = nearest_shape(shapes, *image.shape[1:3])
    return height or shape.height_px, width or shape.width_px


def embed_picture(clip_vision: Any, picture: torch.Tensor) -> torch.Tensor:
    """CLIP's projected image embedding `[1, 1, D]` of `picture [H, W, 3]`, resized as in training.

    The picture gets the encoder's size here, so that ComfyUI does not resize or crop it. A model without an
    image encoder gets zeros, which it does not read.
    """
    if isinstance(clip_vision, NoImageEncoder):
        return clip_vision.image_embeds()
    side_px = getattr(clip_vision, "image_size", 224)
    pixels = resize_for_clip(picture.movedim(-1, 0)[None], side_px)
    return clip_vision.encode_image(pixels.movedim(1, -1), crop=False).image_embeds[:, None]


def _latent_mask(
    mask: torch.Tensor | None, image: torch.Tensor, still: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """The object at latent size, `[1, 1, h, w]` in {0, 1}; all ones without a mask."""
    size = still.shape[-2:]
    if mask is None:
        return torch.ones(1, 1, *size)
    mask = mask.reshape(-1, *mask.shape[-2:])[:1].float().cpu()
    # Some nodes make masks of another size than the picture.
    if mask.shape[-2:] != image.shape[1:3]:
        mask = torch.nn.functional.interpolate(mask[None], tuple(image.shape[1:3]))[0]
    fitted = mask_to_latent(fit_mask(mask[0], height, width)[None], *size)
    if not fitted.any():
        raise LoopAnimateError(
            "the mask is empty, so nothing would move; 1 must be the object (in Load Image's mask 1 is"
            " transparent: use Salient Mask in between)"
        )
    return fitted
