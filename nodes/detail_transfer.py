"""Detail Transfer: the frames of a loop tell the motion, the still's own pixels are moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from loopanimate_core.detail.settings import BAND, MAX_SIDE_PX, MIN_SIDE_PX, MODES, SIZES
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import save_picture
from loopanimate_core.picture.saliency import mask_preview
from loopanimate_core.picture.sheet import shrink_frames

from .common import LoopIO, progress, rgb, temp_file
from .schema import supported

if TYPE_CHECKING:
    from loopanimate_core.detail import DetailLoop

CUSTOM = "custom"
PREVIEW_PX = 384


class DetailTransfer(io.ComfyNode):
    """Schema and wiring; the work is done in `loopanimate_core.detail`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopAnimate_DetailTransfer",
            display_name="Detail Transfer",
            category="LoopAnimate",
            description=(
                "Moves the pixels of your still picture as the frames of a loop move: a crisp loop at the"
                " picture's own size, or any other, from a small or blurred one. Works with loops of any model."
            ),
            inputs=[
                io.Image.Input(
                    "frames",
                    tooltip=(
                        "The frames that play, without the first one again at the end. The first one"
                        " shows the still, evenly cropped to the shape of the frames."
                    ),
                ),
                io.Image.Input(
                    "still",
                    tooltip=(
                        "The picture that the loop was made of, at its full size. A fourth channel is"
                        " transparency."
                    ),
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=MODES[0],
                    tooltip=(
                        "rigid: cuts the object out, moves it and fills in what was behind it. elastic: bends"
                        " the picture around the object, so nothing needs to be filled in. auto: elastic if the"
                        " background is too busy to be filled in, otherwise rigid. off: enlarges the frames."
                    ),
                ),
                io.Combo.Input(
                    "size",
                    options=[*SIZES, CUSTOM],
                    default=SIZES[0],
                    tooltip=(
                        "original: the size of the still. model: the size of the frames. 1080p, 4k: the still's"
                        " shape, as large as fits into 1920 x 1080 or 3840 x 2160, upright or not. at most 1080p:"
                        " original, or 1080p if that is smaller. custom: width and height below."
                    ),
                ),
                io.Int.Input(
                    "width",
                    default=1920,
                    min=MIN_SIDE_PX,
                    max=MAX_SIDE_PX,
                    tooltip="Width in pixels if size is custom. The still is cropped evenly to the shape.",
                ),
                io.Int.Input(
                    "height",
                    default=1080,
                    min=MIN_SIDE_PX,
                    max=MAX_SIDE_PX,
                    tooltip="Height in pixels if size is custom.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=120.0,
                    step=0.5,
                    tooltip=(
                        "Frames per second of the result; new frames are drawn in between, and the loop takes"
                        " as long as before. 0 keeps the frames there are."
                    ),
                ),
                io.Float.Input(
                    "frames_fps",
                    default=8.0,
                    min=1.0,
                    max=120.0,
                    step=0.5,
                    tooltip="Frames per second of the input frames: 8 for the bundled model.",
                ),
                io.Float.Input(
                    "residual",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip=(
                        "How much of what is not motion (a blink, light, smoke) is taken from the frames. Keep 0"
                        " for the bundled model, whose frames are too soft; try 0.5 to 1 with full-size models."
                    ),
                ),
                io.Float.Input(
                    "band",
                    default=BAND,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "Width of the bent zone around the object in elastic, as a part of the picture's longer"
                        " side. Wider bends more gently."
                    ),
                ),
                io.Boolean.Input(
                    "transparent",
                    default=False,
                    tooltip="Draws the object alone on a transparent background, for stickers and overlays.",
                ),
                io.Combo.Input(
                    "deliver",
                    options=["images", "stream"],
                    default="images",
                    tooltip=(
                        "images: draws all frames now. stream: images has the first frame only, and Save Loop"
                        " draws the others one at a time from loop: for 4K, when all frames would fill the memory."
                    ),
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "1 = the object that moves, as from Salient Mask. Without a mask: the still's"
                        " transparency, or the object that stands out."
                    ),
                ),
                io.Image.Input(
                    "plate",
                    optional=True,
                    tooltip="The same picture without the object, at the same size: what appears behind it.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip=(
                        "The VAE of the model that made the frames. The motion is read several times more"
                        " exactly, because the errors of the VAE are taken into account."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    "images",
                    display_name="images",
                    tooltip="The frames that play; the first frame only if deliver is stream.",
                ),
                LoopIO.Output(
                    "loop",
                    display_name="loop",
                    tooltip="Draws its frames one at a time: connect it to loop of Save Loop.",
                ),
                io.Mask.Output(
                    "matte",
                    display_name="matte",
                    tooltip="The object in the first frame with soft edges; 1 = object.",
                ),
                io.Float.Output(
                    "fps_out",
                    display_name="fps",
                    tooltip="Frames per second of the result, for Loop Check and Save Loop.",
                ),
            ],
            **supported(
                search_aliases=[
                    "upscale",
                    "4K",
                    "high resolution",
                    "crisp",
                    "sharp",
                    "interpolation",
                ]
            ),
        )

    @classmethod
    def execute(
        cls,
        frames: torch.Tensor,
        still: torch.Tensor,
        mode: str,
        size: str,
        width: int,
        height: int,
        fps: float,
        frames_fps: float,
        residual: float,
        band: float,
        transparent: bool,
        deliver: str,
        mask: torch.Tensor | None = None,
        plate: torch.Tensor | None = None,
        vae: Any = None,
    ) -> io.NodeOutput:
        from loopanimate_core.detail import DetailSettings, transfer

        if deliver not in ("images", "stream"):
            raise LoopAnimateError(f"deliver must be 'images' or 'stream', got {deliver!r}")
        settings = DetailSettings(
            mode=mode,
            residual=residual,
            band=band,
            size=f"{width}x{height}" if size == CUSTOM else size,
            fps=fps or None,
            transparent=transparent,
        )
        loop = transfer(
            rgb(frames),
            still[0],
            None if mask is None else _object_mask(mask),
            settings,
            frames_fps=frames_fps,
            plate=None if plate is None else rgb(plate)[0],
            autoencoder=None if vae is None else _RoundTrip(vae),
        )
        images = loop[0][None] if deliver == "stream" else _drawn(loop)
        shown = {"images": [_preview(loop)]}
        return io.NodeOutput(images, loop, loop.matte[None], loop.fps, ui=shown)


def _object_mask(mask: torch.Tensor) -> torch.Tensor:
    """The first mask `[H, W]` of a MASK."""
    first = mask.reshape(-1, *mask.shape[-2:])[0]
    if not first.any():
        raise LoopAnimateError(
            "the mask is empty, so there is no object to move; 1 must be the object (in Load Image's mask"
            " 1 is transparent: use Salient Mask in between)"
        )
    return first


def _drawn(loop: DetailLoop) -> torch.Tensor:
    """All frames; drawn into the result one by one, so nothing else of its size is held."""
    done = progress(len(loop))
    first = loop[0]
    images = first.new_empty(len(loop), *first.shape)
    for index in range(len(loop)):
        images[index] = loop[index]
        done(index + 1)
    return images


def _preview(loop: DetailLoop) -> dict[str, str]:
    """The first frame with everything but the object darkened, as a file for the page."""
    small = shrink_frames(
        torch.cat([loop[0][..., :3], loop.matte[..., None]], -1)[None], PREVIEW_PX
    )
    path, address = temp_file("loopanimate_matte", ".png")
    save_picture(mask_preview(small[..., :3], small[..., 3])[0], path)
    return address


class _RoundTrip:
    """A VAE as `[n, h, w, 3]` to what is left of it after encoding and decoding."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        import comfy.model_management

        # A video model's VAE would take a batch for a clip and mix its frames.
        at_once = 1 if getattr(self.vae, "latent_dim", 2) == 3 else len(pictures)
        passed = []
        for part in pictures.split(at_once):
            comfy.model_management.throw_exception_if_processing_interrupted()
            decoded = self.vae.decode(self.vae.encode(part))
            decoded = decoded.reshape(-1, *decoded.shape[-3:]).cpu()
            if decoded.shape != part.shape:
                raise LoopAnimateError(
                    f"the VAE turns {_size(part)} into {_size(decoded)} pixels; connect the VAE that made"
                    " the frames, or none"
                )
            passed.append(decoded)
        return torch.cat(passed)


def _size(pictures: torch.Tensor) -> str:
    return f"{len(pictures)} frames of {pictures.shape[2]} x {pictures.shape[1]}"
