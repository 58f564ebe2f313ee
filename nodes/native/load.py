"""Files to MODEL, CLIP, CLIP_VISION and VAE, without diffusers and transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from loopanimate_core.bundle import BundleConfig, read_parts
from loopanimate_core.bundle.tensorfile import read_tensors
from loopanimate_core.convert import layouts
from loopanimate_core.convert.assemble import assemble_unet, sampling_of
from loopanimate_core.convert.sources import (
    image_encoder_sizes,
    read_motion,
    text_encoder_sizes,
    vae_sizes,
)
from loopanimate_core.encoders.tokenizer import TOKENIZER_CLIP
from loopanimate_core.errors import LoopAnimateError

from ..common import NoImageEncoder
from .encoders import build_clip, build_clip_vision
from .lora_names import read_motion_loras
from .model import build_model
from .vae import build_vae, latent_format_of


@dataclass(frozen=True)
class Loaded:
    """ComfyUI's objects."""

    model: Any
    clip: Any
    clip_vision: Any
    vae: Any


def load_bundle(path: Path, dtype: str = "auto") -> Loaded:
    """Load a bundle; `dtype` is that of the MODEL, as in `build_model`.

    Raises:
        LoopAnimateError: the file is not a bundle, or damaged.
    """
    parts = read_parts(path)
    loaded = _build(parts.config, parts.states, dtype)
    loaded.model.model.few_steps = parts.few_steps
    return loaded


def load_parts(
    checkpoint: Path,
    image_unet: Path | None,
    motion_module: Path,
    clip_vision: Path | None,
    dtype: str,
) -> Loaded:
    """Assemble a model from Stable Diffusion 1.x files.

    PIA's motion module with a checkpoint's own UNet is PIA as it was trained: it reads text alone, and needs no
    image encoder. Everything else has the paper's conditioning.

    Args:
        checkpoint: a Stable Diffusion 1.x checkpoint: text encoder, VAE, and the UNet if `image_unet` is None.
        image_unet: a UNet that was trained on image embeddings, such as sd-image-variations.
        motion_module: a motion module of AnimateDiff or PIA.
        clip_vision: the CLIP ViT-L/14 image encoder; None only for PIA.

    Raises:
        LoopAnimateError: a file of another kind, or damaged; the message names it.
    """
    pia = image_unet is None and read_motion(motion_module).conv_in is not None
    conditioning = "pia" if pia else "loop"
    if clip_vision is None and not pia:
        raise LoopAnimateError(
            "clip_vision must be the CLIP ViT-L/14 image encoder if bundle is 'parts', got 'none'; only PIA"
            " without an image_unet does without"
        )
    unet = assemble_unet(image_unet or checkpoint, motion_module, conditioning=conditioning)
    tensors = read_tensors(checkpoint)
    if (kind := layouts.kind_of(tensors, checkpoint)) != "checkpoint":
        raise LoopAnimateError(
            f"checkpoint must be a whole Stable Diffusion 1.x checkpoint, got {checkpoint} ({kind})"
        )
    halves = layouts.split_checkpoint(tensors, checkpoint)
    text_state = layouts.classic_text_encoder(halves["text_encoder"])
    vision_state = {} if clip_vision is None else _read_vision(clip_vision)
    config = BundleConfig(
        unet=unet.config,
        vae=vae_sizes(halves["vae"], "down", "block", checkpoint),
        text_encoder=text_encoder_sizes(text_state, checkpoint),
        image_encoder=image_encoder_sizes(vision_state, clip_vision) if clip_vision else {},
        tokenizer=TOKENIZER_CLIP,
        schedule=unet.schedule,
        **sampling_of(conditioning),
    )
    states = {
        "unet": unet.state,
        "vae": halves["vae"],
        "text_encoder": text_state,
        "image_encoder": vision_state,
    }
    return _build(config, states, dtype)


def _read_vision(path: Path) -> dict[str, Tensor]:
    vision = read_tensors(path)
    if (kind := layouts.kind_of(vision, path)) not in ("image_encoder", "clip"):
        raise LoopAnimateError(f"clip_vision must be a CLIP image encoder, got {path} ({kind})")
    return layouts.vision_encoder(vision)


def _build(config: BundleConfig, states: dict[str, dict[str, Tensor]], dtype: str) -> Loaded:
    read_motion_loras()
    vae = build_vae(config.vae, states["vae"])
    clip_vision: Any = (
        build_clip_vision(config.image_encoder, states["image_encoder"], config.all_shapes)
        if config.image_encoder
        else NoImageEncoder(config.unet.cross_attention_dim, config.all_shapes)
    )
    clip_vision.loopanimate_conditioning = config.conditioning
    return Loaded(
        model=build_model(config, states["unet"], latent_format_of(vae, config.vae), dtype),
        clip=build_clip(config.text_encoder, config.tokenizer, states["text_encoder"]),
        clip_vision=clip_vision,
        vae=vae,
    )
