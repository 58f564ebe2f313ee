"""Load LoopAnimate: a bundle or Stable Diffusion parts as MODEL, CLIP, CLIP_VISION and VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from loopanimate_core.errors import LoopAnimateError

from .folders import MINI, NONE, PARTS, bundle_choices, bundle_path, files_of, model_path
from .schema import supported


class LoadLoopAnimate(io.ComfyNode):
    """Schema and wiring; the loading is in `native.load`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopAnimate_LoadLoopAnimate",
            display_name="Load LoopAnimate",
            category="LoopAnimate",
            description=(
                "Loads a LoopAnimate model from one file in models/loopanimate, or from Stable Diffusion 1.x"
                " parts. All other nodes take its model, CLIP and VAE."
            ),
            inputs=[
                io.Combo.Input(
                    "bundle",
                    options=bundle_choices(),
                    default=MINI,
                    tooltip=(
                        "The model: a file in models/loopanimate, the bundled mini (animated stickers,"
                        " 96 x 96 pixels), or parts to combine the four files below."
                    ),
                ),
                _file(
                    "checkpoint",
                    "checkpoints",
                    "a Stable Diffusion 1.x checkpoint. Its text encoder and VAE are used, and its UNet"
                    " if image_unet is none.",
                ),
                _file(
                    "image_unet",
                    "diffusion_models",
                    "a Stable Diffusion 1.x UNet trained on image embeddings (sd-image-variations)."
                    " none: the checkpoint's UNet.",
                ),
                _file(
                    "motion_module",
                    "animatediff_models",
                    "a motion module, AnimateDiff v1, v2, v3 or PIA, from models/animatediff_models.",
                ),
                _file(
                    "clip_vision",
                    "clip_vision",
                    "the CLIP ViT-L/14 image encoder. none is enough for PIA with a checkpoint's own UNet.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=["auto", "fp32", "fp16", "bf16"],
                    default="auto",
                    tooltip=(
                        "Number format of the weights. auto: chosen for the device. fp32: exact, but"
                        " twice the memory."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model",
                    display_name="model",
                    tooltip=(
                        "The diffusion model. It closes loops (tie) with every sampler; Loop Sampler"
                        " offers more ways."
                    ),
                ),
                io.Clip.Output(
                    "clip", display_name="clip", tooltip="The text encoder, for CLIP Text Encode."
                ),
                io.ClipVision.Output(
                    "clip_vision_out",
                    display_name="clip_vision",
                    tooltip="The image encoder, for Build Loop Conditions and Loop Check.",
                ),
                io.Vae.Output(
                    "vae", display_name="vae", tooltip="Encodes pictures and decodes latents."
                ),
            ],
            **supported(
                search_aliases=["loop", "animate", "checkpoint", "motion module", "image to video"]
            ),
        )

    @classmethod
    def fingerprint_inputs(cls, bundle: str, **inputs: str) -> list[Any]:
        """Load again when a file is replaced under the same name."""
        paths = _part_paths(**inputs).values() if bundle == PARTS else [bundle_path(bundle)]
        return [[str(p), p.stat().st_mtime_ns] for p in paths if p is not None]

    @classmethod
    def execute(
        cls,
        bundle: str,
        checkpoint: str = NONE,
        image_unet: str = NONE,
        motion_module: str = NONE,
        clip_vision: str = NONE,
        dtype: str = "auto",
    ) -> io.NodeOutput:
        if bundle == PARTS:
            paths = _part_paths(checkpoint, image_unet, motion_module, clip_vision)
            _require(paths)
            from .native.load import load_parts

            loaded = load_parts(**paths, dtype=dtype)  # type: ignore[arg-type]
        else:
            path = bundle_path(bundle)
            from .native.load import load_bundle

            loaded = load_bundle(path, dtype)
        return io.NodeOutput(loaded.model, loaded.clip, loaded.clip_vision, loaded.vae)


SOURCES = {
    "checkpoint": "checkpoint: any Stable Diffusion 1.x checkpoint, in models/checkpoints"
    " (huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5)",
    "motion_module": "motion_module: an AnimateDiff motion module, in models/animatediff_models"
    " (huggingface.co/guoyww/animatediff)",
    "clip_vision": "clip_vision: the CLIP ViT-L/14 image encoder, in models/clip_vision"
    " (huggingface.co/openai/clip-vit-large-patch14), which PIA does not need",
}
"""The parts of a model, and where to get them."""


def _require(paths: dict[str, Path | None]) -> None:
    """Raises LoopAnimateError that names all parts that are not chosen, if one is needed by every model."""
    missing = [source for name, source in SOURCES.items() if paths[name] is None]
    if paths["checkpoint"] is None or paths["motion_module"] is None:
        raise LoopAnimateError(
            f"bundle 'parts' needs {len(missing)} more of its files. Choose "
            + "; ".join(missing)
            + ". `loopanimate fetch pia --comfyui FOLDER` downloads the first two into their folders"
        )


def _file(name: str, folder: str, tooltip: str) -> Any:
    """The choice of one part from a model folder."""
    return io.Combo.Input(
        name,
        options=[NONE, *files_of(folder)],
        default=NONE,
        tooltip=f"Only with parts: {tooltip}",
    )


def _part_paths(
    checkpoint: str = NONE,
    image_unet: str = NONE,
    motion_module: str = NONE,
    clip_vision: str = NONE,
    **_others: str,
) -> dict[str, Path | None]:
    chosen = {
        "checkpoint": ("checkpoints", checkpoint),
        "image_unet": ("diffusion_models", image_unet),
        "motion_module": ("animatediff_models", motion_module),
        "clip_vision": ("clip_vision", clip_vision),
    }
    return {
        part: None if name == NONE else model_path(folder, name)
        for part, (folder, name) in chosen.items()
    }
