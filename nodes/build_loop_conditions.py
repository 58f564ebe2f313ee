"""Build Loop Conditions: puts a picture and its mask into the prompts, and makes the latent to sample."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from loopanimate_core.conditions import DEFAULT_MOTION, MOTIONS, check_motion
from loopanimate_core.encoders.image import resize_for_clip
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.framing import (
    FITS,
    POSITIONS,
    Frame,
    border_colour,
    choose_frame,
    take_frame,
)
from loopanimate_core.picture.images import fit_picture
from loopanimate_core.picture.shapes import Shape, nearest_shape

from .common import NoImageEncoder, log
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
                        "The still picture. It is resized, and cropped or padded if its shape differs: see"
                        " fit. A batch makes one loop of each picture."
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
                    "fit",
                    options=list(FITS),
                    default="crop",
                    optional=True,
                    tooltip=(
                        "If the loop has another shape than the picture. crop: fill it, and cut off what does not"
                        " fit. pad: show the whole picture, with a border."
                    ),
                ),
                io.Combo.Input(
                    "position",
                    options=list(POSITIONS),
                    default="object",
                    optional=True,
                    tooltip=(
                        "What a crop keeps. object: the middle, moved just so far that the masked object stays"
                        " whole. centre: always the middle. The others: that edge of the picture."
                    ),
                ),
                io.Combo.Input(
                    "motion",
                    options=list(MOTIONS),
                    default=DEFAULT_MOTION,
                    optional=True,
                    tooltip=(
                        "How far frames may go from the picture. Only models with PIA's conditioning read"
                        " it; with others the node says so, and words or start do it."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "positive_out",
                    display_name="positive",
                    tooltip="The positive prompt with the picture; a list with one of each picture.",
                    is_output_list=True,
                ),
                io.Conditioning.Output(
                    "negative_out",
                    display_name="negative",
                    tooltip="The negative prompt with the picture.",
                    is_output_list=True,
                ),
                io.Latent.Output(
                    "latent",
                    display_name="latent",
                    tooltip="The still picture in every frame, ready to be sampled.",
                    is_output_list=True,
                ),
                io.Image.Output(
                    "picture",
                    display_name="picture",
                    tooltip="The part of the picture that the loop shows, at full size: still of Detail Transfer.",
                    is_output_list=True,
                ),
                io.Mask.Output(
                    "mask_out",
                    display_name="mask",
                    tooltip="The object in that part (all of it without a mask): mask of Detail Transfer.",
                    is_output_list=True,
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
        fit: str = "crop",
        position: str = "object",
        motion: str = DEFAULT_MOTION,
    ) -> io.NodeOutput:
        if not MIN_FRAMES <= frames <= MAX_FRAMES:
            raise LoopAnimateError(
                f"frames must be between {MIN_FRAMES} and {MAX_FRAMES}, got {frames}"
            )
        check_motion(motion)
        from .native.travel import check_travel

        for prompt in (positive, negative):
            check_travel(prompt, frames)
        height, width = _loop_size(clip_vision, image, height, width)
        built, notes = [], _notes(clip_vision, height, width, motion)
        for index in range(len(image)):
            picture = image[index, ..., :3].float().cpu()
            region = _mask_of(mask, index, picture)
            rows, columns = picture.shape[:2]
            frame = choose_frame(rows, columns, width / height, fit, position, region)
            if frame.cuts_object:
                notes.append({"key": "object_cut"})
            shown, shown_mask = _shown(picture, region, frame)
            # The middle is cut out by fitting, as it always was, so that older workflows give the same loop.
            fitted_from = (
                (picture, region) if frame.centred and fit == "crop" else (shown, shown_mask)
            )
            conditions = _conditions(clip_vision, vae, *fitted_from, height, width, frames)
            conditions["loop_motion"] = motion
            latent = {
                "samples": conditions["loop_still"].repeat(frames, 1, 1, 1),
                "loop_start": start,
                "loop_frames": frames,
            }
            everywhere = torch.ones(shown.shape[:2]) if shown_mask is None else shown_mask
            prompts = (_with(prompt, conditions) for prompt in (positive, negative))
            built.append((*prompts, latent, shown[None], everywhere[None]))
        for note in notes:
            log.warning("Build Loop Conditions: %s", NOTES[note["key"]].format(**note))
        return io.NodeOutput(*map(list, zip(*built, strict=True)), ui={"loopanimate_notes": notes})


NOTES = {
    "untrained_size": "{size} is not a size that this model was trained on ({trained}); expect noise or glitter."
    " Set width and height to 0 for the nearest one, and let Detail Transfer make it large",
    "object_cut": "the object is larger than the part of the picture that the loop shows; set fit to pad to see all"
    " of it",
    "no_motion_dial": "this model does not read motion; say gently, strongly, slowly or quickly in the prompt, or"
    " change start",
}
"""What the node says of its settings, in English; the page has the same words in its languages."""


def _notes(clip_vision: Any, height: int, width: int, motion: str) -> list[dict[str, str]]:
    from .native.encoders import reads_motion, shapes_of

    shapes, size, notes = shapes_of(clip_vision), Shape(width, height), []
    if shapes and size not in shapes:
        trained = ", ".join(map(str, shapes))
        notes.append({"key": "untrained_size", "size": str(size), "trained": trained})
    if motion != DEFAULT_MOTION and not reads_motion(clip_vision):
        notes.append({"key": "no_motion_dial"})
    return notes


def _conditions(
    clip_vision: Any,
    vae: Any,
    picture: torch.Tensor,
    mask: torch.Tensor | None,
    height: int,
    width: int,
    frames: int,
) -> dict[str, Any]:
    """What `native.model.LoopModel` reads in a prompt."""
    from .native.still import StillSource

    source = StillSource(picture, mask, vae)
    still, latent_mask = source.encode(height, width)
    return {
        "loop_still": still,
        "loop_mask": latent_mask,
        "loop_image_embeds": embed_picture(clip_vision, fit_picture(picture, height, width)),
        "loop_frames": frames,
        "loop_source": source,
    }


def _with(prompt: list[Any], conditions: dict[str, Any]) -> list[Any]:
    import node_helpers

    return node_helpers.conditioning_set_values(prompt, conditions)


def _shown(
    picture: torch.Tensor, mask: torch.Tensor | None, frame: Frame
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The part of picture and mask that the loop shows."""
    part = take_frame(picture, frame, border_colour(picture))
    return part, None if mask is None else take_frame(mask, frame)


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


def _mask_of(mask: torch.Tensor | None, index: int, picture: torch.Tensor) -> torch.Tensor | None:
    """The mask `[H, W]` of one picture of a batch, at the picture's size; the last mask serves those without one."""
    if mask is None:
        return None
    mask = mask.reshape(-1, *mask.shape[-2:])
    own = mask[min(index, len(mask) - 1)].float().cpu()
    if own.shape != picture.shape[:2]:  # some nodes make masks of another size than the picture
        own = torch.nn.functional.interpolate(own[None, None], tuple(picture.shape[:2]))[0, 0]
    return own
