"""Build a bundle from public parts of Stable Diffusion 1.x.

Tensors stay mapped to the files they were read from, so that no model is in memory twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..bundle import Bundle, BundleConfig
from ..bundle.components import build_on_meta, load_weights
from ..conditions import CONDITIONINGS
from ..encoders.tokenizer import build_tokenizer
from ..errors import LoopAnimateError
from ..models import LoopUNetConfig
from ..models.layers import MotionModule
from ..schedule import ScheduleConfig
from ..settings import SamplingDefaults
from .sources import (
    Source,
    read_image_encoder,
    read_motion,
    read_text_encoder,
    read_tokenizer,
    read_unet,
    read_vae,
)

CONV_IN_INITS = ("zero", "random")
FULL_SIZE_RESIDUAL = 0.5  # such a model draws light and faces well, its finest grain less so
PIA_FRAMES = 16  # of its training clips


@dataclass(frozen=True)
class PartFiles:
    """Where the parts of a bundle are: diffusers folders or single files.

    Attributes:
        unet: an sd-image-variations folder, or a Stable Diffusion 1.x folder or checkpoint.
        motion: motion modules (AnimateDiff v1, v2, v3, PIA, or a diffusers adapter); None creates untrained
            ones, for training.
        vae, text_encoder, image_encoder: needed if `unet` has none, or to use another one. With PIA's
            conditioning nothing reads an image encoder, so it may be left out.
    """

    unet: Path
    motion: Path | None = None
    vae: Path | None = None
    text_encoder: Path | None = None
    image_encoder: Path | None = None


def assemble(
    files: PartFiles,
    *,
    conditioning: str = "loop",
    conv_in_init: str = "zero",
    routing: tuple[str, str, str] | None = None,
    schedule: ScheduleConfig | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Bundle:
    """Assemble a model of the paper's architecture from public parts (Sec. 3.5), or PIA as it was trained.

    Args:
        conditioning: "loop" for the paper's, "pia" for PIA's own, which needs its motion module and no training.
        conv_in_init: start of the five new input channels: "zero" keeps the UNet's output, "random" is what
            the paper does. A PIA file has its own values for them.
        routing: what the cross-attention of the down, middle and up blocks reads; None is image, text, text,
            and text everywhere with PIA's conditioning.
        schedule: by default `linear` with motion modules, as AnimateDiff was trained, else `scaled_linear`.
        seed: for everything that starts at random.
        dtype: the dtype of all weights.

    Raises:
        LoopAnimateError: a file cannot be used; the message names the file and the reason.
    """
    unet = assemble_unet(
        files.unet,
        files.motion,
        conditioning=conditioning,
        conv_in_init=conv_in_init,
        routing=routing,
        seed=seed,
    )
    vae = read_vae(files.vae or files.unet)
    text_path = files.text_encoder or _inside(files.unet, "text_encoder")
    text, image = read_text_encoder(text_path), Source({}, {})
    if files.image_encoder is not None or "image" in unet.config.routing:
        image = read_image_encoder(files.image_encoder or _inside(files.unet, "image_encoder"))

    bundle_config = BundleConfig(
        unet=unet.config,
        vae=vae.settings,
        text_encoder=text.settings,
        image_encoder=image.settings,
        tokenizer=read_tokenizer(text_path),
        schedule=schedule or unet.schedule,
        **sampling_of(conditioning),
    )
    states = {
        "unet": unet.state,
        "vae": vae.state,
        "text_encoder": text.state,
        "image_encoder": image.state,
    }
    modules: dict[str, Any] = {
        part: load_weights(
            part,
            build_on_meta(part, getattr(bundle_config, part)),
            {name: tensor.to(dtype) for name, tensor in states[part].items()},
        )
        for part in bundle_config.parts
    }
    modules.setdefault("image_encoder", None)
    provenance = {
        "assembled_from": {
            part: None if path is None else Path(path).name
            for part, path in vars(files).items()
            if path is not None or part == "motion"
        },
        "conv_in": unet.conv_in,
    }
    return Bundle(
        bundle_config,
        **modules,
        tokenizer=build_tokenizer(bundle_config.tokenizer),
        provenance=provenance,
    )


@dataclass
class AssembledUNet:
    """The weights of a LoopUNet from public parts.

    Attributes:
        schedule: the noise schedule that its motion modules were trained with.
        conv_in: the source of the five new input channels: "PIA", "zero" or "random".
    """

    config: LoopUNetConfig
    state: dict[str, Tensor]
    schedule: ScheduleConfig
    conv_in: str


def assemble_unet(
    unet_path: Path,
    motion_path: Path | None,
    *,
    conditioning: str = "loop",
    conv_in_init: str = "zero",
    routing: tuple[str, str, str] | None = None,
    seed: int = 0,
) -> AssembledUNet:
    """Assemble the UNet alone, without diffusers and transformers; arguments and errors as `assemble`."""
    if conv_in_init not in CONV_IN_INITS:
        raise LoopAnimateError(
            f"conv_in_init must be one of {', '.join(CONV_IN_INITS)}, got {conv_in_init!r}"
        )
    if conditioning not in CONDITIONINGS:
        raise LoopAnimateError(
            f"conditioning must be one of {', '.join(CONDITIONINGS)}, got {conditioning!r}"
        )
    unet = read_unet(unet_path)
    motion = None if motion_path is None else read_motion(motion_path)
    if motion and motion.norm_num_groups not in (None, unet.settings.norm_num_groups):
        raise LoopAnimateError(
            f"{motion_path} has norm_num_groups {motion.norm_num_groups}, but {unet_path} has"
            f" {unet.settings.norm_num_groups}"
        )
    pia = conditioning == "pia"
    if pia and (motion is None or motion.conv_in is None):
        raise LoopAnimateError(
            "conditioning 'pia' needs PIA's motion module, which has nine input channels, got"
            f" {motion_path or 'no motion module'}"
        )
    config = replace(
        unet.settings,
        routing=routing or (("text",) * 3 if pia else ("image", "text", "text")),
        norm_scope="clip" if pia else "per_frame",  # as in diffusers' PIAPipeline
        **(motion.settings if motion else {}),
    )
    generator = torch.Generator().manual_seed(seed)
    new_channels = motion.conv_in if motion else None
    state = dict(unet.state)
    state["conv_in.weight"] = widen_conv_in(
        state["conv_in.weight"], new_channels, conv_in_init, generator
    )
    state |= motion.state if motion else _untrained_motion(config, seed)
    return AssembledUNet(
        config,
        state,
        ScheduleConfig("linear" if motion else "scaled_linear"),
        conv_in_init if new_channels is None else "PIA",
    )


def sampling_of(conditioning: str) -> dict[str, Any]:
    """The frames and sampling settings that a BundleConfig gets from `conditioning`."""
    if conditioning != "pia":
        return {"defaults": SamplingDefaults(residual=FULL_SIZE_RESIDUAL)}
    defaults = SamplingDefaults(frames=PIA_FRAMES, residual=FULL_SIZE_RESIDUAL)
    return {"conditioning": "pia", "frames": (PIA_FRAMES,), "defaults": defaults}


def _inside(unet: Path, part: str) -> Path:
    """The UNet's own file or folder, if it can contain that encoder."""
    has = (unet / part).is_dir() if unet.is_dir() else part == "text_encoder"
    if not has:
        example = {
            "text_encoder": "a Stable Diffusion 1.x checkpoint or folder",
            "image_encoder": "the sd-image-variations folder, or a CLIP ViT-L/14 vision file",
        }
        raise LoopAnimateError(f"{unet} has no {part}; another source is needed: {example[part]}")
    return unet


def widen_conv_in(
    weight: Tensor, other: Tensor | None, init: str, generator: torch.Generator
) -> Tensor:
    """Widen conv_in from four input channels to the nine of Eq. 11; the first four are kept.

    Args:
        weight: `[C, 4, 3, 3]`.
        other: `[C, 9, 3, 3]` in our channel order, to take the last five from; None creates them by `init`.
        init: "zero" or "random" (as torch initialises a convolution with nine input channels).

    Raises:
        LoopAnimateError: `other` has another shape.
    """
    if other is not None:
        if other.shape != (weight.shape[0], 9, *weight.shape[2:]):
            raise LoopAnimateError(
                f"conv_in has shape {list(other.shape)} in the motion module and {list(weight.shape)} in"
                " the UNet; they do not fit"
            )
        new = other[:, 4:].to(weight.dtype)
    else:
        new = weight.new_zeros(weight.shape[0], 5, *weight.shape[2:])
        if init == "random":
            bound = (9 * weight[0, 0].numel()) ** -0.5
            new.uniform_(-bound, bound, generator=generator)
    return torch.cat([weight, new], dim=1)


def _untrained_motion(config: LoopUNetConfig, seed: int) -> dict[str, Tensor]:
    """Motion modules as training starts: random, but with a last layer of zeros, so that they change nothing."""
    state: dict[str, Tensor] = {}
    unet: Any = build_on_meta("unet", config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in unet.named_modules():
            if isinstance(module, MotionModule):
                module.to_empty(device="cpu")
                for layer in module.modules():
                    if isinstance(layer, (nn.Linear, nn.LayerNorm, nn.GroupNorm)):
                        layer.reset_parameters()
                nn.init.zeros_(module.proj_out.weight)
                nn.init.zeros_(module.proj_out.bias)
                state |= {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}
    return state
