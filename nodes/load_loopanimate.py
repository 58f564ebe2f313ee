"""Load LoopAnimate: a bundle, or parts that artists have, as MODEL, CLIP, CLIP_VISION and VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from loopanimate_core.errors import LoopAnimateError

from .folders import MINI, NONE, PARTS, bundle_choices, bundle_path, files_of, model_path
from .schema import schema


class LoadLoopAnimate(io.ComfyNode):
    """Schema and wiring; the loading is in `native.load`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LoadLoopAnimate",
            "Load LoopAnimate",
            description=(
                "Loads a LoopAnimate model, from one file in models/loopanimate or from Stable Diffusion 1.x"
                " parts, as the model, CLIP and VAE that all other nodes take."
            ),
            search_aliases=["loop", "animate", "checkpoint", "motion module", "image to video"],
            inputs=[
                io.Combo.Input(
                    "bundle",
                    options=bundle_choices(),
                    default=MINI,
                    tooltip=(
                        "The model: a file in models/loopanimate, the mini that comes with LoopAnimate"
                        " (animated stickers, 96 x 96 pixels), or parts: the four files chosen below."
                    ),
                ),
                _file("checkpoint", ["checkpoints"], "Only with parts: a Stable Diffusion 1.x checkpoint. Its text encoder and VAE are used, and its UNet where image_unet is none."),
                _file("image_unet", ["diffusion_models"], "Only with parts: a Stable Diffusion 1.x UNet that reads image embeddings (sd-image-variations). none: the checkpoint's."),
                _file("motion_module", ["animatediff_models"], "Only with parts: what makes it move, a motion module of AnimateDiff v1, v2, v3 or PIA from models/animatediff_models."),
                _file("clip_vision", ["clip_vision"], "Only with parts: the CLIP ViT-L/14 image encoder through which the model sees the picture."),
                io.Combo.Input(
                    "dtype",
                    options=["auto", "fp32", "fp16", "bf16"],
                    default="auto",
                    tooltip="Number format of the model's weights. auto: what suits the device. fp32 is exact and takes twice the memory.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model",
                    tooltip="The network. It closes its loops by itself (tie) under any sampler; Loop Sampler offers more ways.",
                ),
                io.Clip.Output("clip", tooltip="The text encoder, for CLIP Text Encode."),
                io.ClipVision.Output(
                    "clip_vision_out",
                    display_name="clip_vision",
                    tooltip="The image encoder, for Build Loop Conditions and Loop Check.",
                ),
                io.Vae.Output("vae", tooltip="Pictures to latents and back."),
            ],
        )  # fmt: skip

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
        from .native.load import load_bundle, load_parts

        if bundle == PARTS:
            paths = _part_paths(checkpoint, image_unet, motion_module, clip_vision)
            for name, what in (
                ("checkpoint", "a Stable Diffusion 1.x checkpoint"),
                ("motion_module", "a motion module, which makes it move"),
                ("clip_vision", "the CLIP ViT-L/14 image encoder"),
            ):
                if paths[name] is None:
                    raise LoopAnimateError(
                        f"with bundle 'parts', {name} must be {what}; it is none"
                    )
            loaded = load_parts(**paths, dtype=dtype)  # type: ignore[arg-type]
        else:
            loaded = load_bundle(bundle_path(bundle), dtype)
        return io.NodeOutput(loaded.model, loaded.clip, loaded.clip_vision, loaded.vae)


def _file(name: str, folders: list[str], tooltip: str) -> Any:
    names = [name for folder in folders for name in files_of(folder)]
    return io.Combo.Input(name, options=[NONE, *names], default=NONE, tooltip=tooltip)


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
