"""Build a bundle from parts that are public for Stable Diffusion 1.x, and take one apart again.

Tensors stay mapped to the files they were read from, and files are written tensor by tensor, so neither way
holds a whole model twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..bundle import Bundle, BundleConfig
from ..bundle.components import PARTS, build_on_meta, give_weights, state_of
from ..bundle.tensorfile import write_tensors
from ..encoders.tokenizer import build_tokenizer, write_tokenizer_files
from ..errors import LoopAnimateError
from ..files import atomic_write
from ..models import LoopUNetConfig
from ..models.layers import MotionModule, sinusoid
from ..schedule import ScheduleConfig
from . import layouts
from .sources import (
    Motion,
    read_image_encoder,
    read_motion,
    read_text_encoder,
    read_tokenizer,
    read_unet,
    read_vae,
    standard_settings,
)

CONV_IN_INITS = ("zero", "random")


@dataclass(frozen=True)
class PartFiles:
    """Where the parts of a bundle are: folders of diffusers, or single files.

    Attributes:
        unet: an sd-image-variations folder, or a Stable Diffusion 1.x folder or checkpoint.
        motion: motion modules (AnimateDiff v1, v2, v3, PIA, diffusers' adapter); None starts untrained ones, for
            training.
        vae, text_encoder, image_encoder: where `unet`'s folder or checkpoint has none, or another one is wanted.
    """

    unet: Path
    motion: Path | None = None
    vae: Path | None = None
    text_encoder: Path | None = None
    image_encoder: Path | None = None


# ------------------------------------------------------------------------------------ assembling
def assemble(
    files: PartFiles,
    *,
    conv_in_init: str = "zero",
    routing: tuple[str, str, str] = ("image", "text", "text"),
    schedule: ScheduleConfig | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Bundle:
    """Assemble a model of the paper's architecture from public parts (Sec. 3.5).

    Args:
        conv_in_init: of the five new input channels: "zero" leaves the UNet as it was, "random" is the paper's.
            PIA's file brings its own.
        routing: what the cross-attention of the down, middle and up blocks reads.
        schedule: by default `linear` with motion modules, which AnimateDiff trained on it, else `scaled_linear`.
        seed: of everything random.
        dtype: the type of all weights.

    Raises:
        LoopAnimateError: one sentence that names the file and what is wrong with it.
    """
    unet = assemble_unet(
        files.unet, files.motion, conv_in_init=conv_in_init, routing=routing, seed=seed
    )
    vae = read_vae(files.vae or files.unet)
    text_path = files.text_encoder or _inside(files.unet, "text_encoder")
    image_path = files.image_encoder or _inside(files.unet, "image_encoder")
    text, image = read_text_encoder(text_path), read_image_encoder(image_path)

    bundle_config = BundleConfig(
        unet=unet.config,
        vae=vae.settings,
        text_encoder=text.settings,
        image_encoder=image.settings,
        tokenizer=read_tokenizer(text_path),
        schedule=schedule or unet.schedule,
    )
    states = {
        "unet": unet.state,
        "vae": vae.state,
        "text_encoder": text.state,
        "image_encoder": image.state,
    }
    modules: dict[str, Any] = {
        part: give_weights(
            part,
            build_on_meta(part, getattr(bundle_config, part)),
            {name: tensor.to(dtype) for name, tensor in states[part].items()},
        )
        for part in PARTS
    }
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
    """A LoopUNet put together from public parts.

    Attributes:
        schedule: the noise schedule its motion modules were trained on.
        conv_in: where the five new input channels come from: "PIA", "zero" or "random".
    """

    config: LoopUNetConfig
    state: dict[str, Tensor]
    schedule: ScheduleConfig
    conv_in: str


def assemble_unet(
    unet_path: Path,
    motion_path: Path | None,
    *,
    conv_in_init: str = "zero",
    routing: tuple[str, str, str] = ("image", "text", "text"),
    seed: int = 0,
) -> AssembledUNet:
    """The network alone, for programs that have the other parts; needs neither diffusers nor transformers.

    Args, Raises: as in `assemble`.
    """
    if conv_in_init not in CONV_IN_INITS:
        raise LoopAnimateError(
            f"conv_in_init is {conv_in_init!r}; choose one of {', '.join(CONV_IN_INITS)}"
        )
    unet = read_unet(unet_path)
    motion = None if motion_path is None else read_motion(motion_path)
    if motion and motion.norm_num_groups not in (None, unet.settings.norm_num_groups):
        raise LoopAnimateError(
            f"{motion_path} has norms of {motion.norm_num_groups} groups, {unet_path} of "
            f"{unet.settings.norm_num_groups}"
        )
    config = replace(unet.settings, routing=routing, **(motion.settings if motion else {}))
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


def _inside(unet: Path, part: str) -> Path:
    """The UNet's own file or folder, if it may hold that encoder too."""
    has = (unet / part).is_dir() if unet.is_dir() else part == "text_encoder"
    if not has:
        example = {
            "text_encoder": "a Stable Diffusion 1.x checkpoint or folder",
            "image_encoder": "the sd-image-variations folder, or a CLIP ViT-L/14 vision file",
        }
        raise LoopAnimateError(f"{unet} has no {part}; give another source for it: {example[part]}")
    return unet


def widen_conv_in(
    weight: Tensor, other: Tensor | None, init: str, generator: torch.Generator
) -> Tensor:
    """conv_in from four channels to the nine of Eq. 11: the first four are kept.

    Args:
        weight: `[C, 4, 3, 3]`.
        other: `[C, 9, 3, 3]` in our channel order, whose last five are taken; None makes them by `init`.
        init: "zero" or "random" (as torch initialises a convolution of nine channels).

    Raises:
        LoopAnimateError: `other` has another number of output channels.
    """
    if other is not None:
        if other.shape != (weight.shape[0], 9, *weight.shape[2:]):
            raise LoopAnimateError(
                f"conv_in of the motion module has shape {list(other.shape)}, the UNet's {list(weight.shape)}"
            )
        new = other[:, 4:].to(weight.dtype)
    else:
        new = weight.new_zeros(weight.shape[0], 5, *weight.shape[2:])
        if init == "random":
            bound = (9 * weight[0, 0].numel()) ** -0.5
            new.uniform_(-bound, bound, generator=generator)
    return torch.cat([weight, new], dim=1)


def _untrained_motion(config: LoopUNetConfig, seed: int) -> dict[str, Tensor]:
    """Motion modules as training starts them: at random, the last layer zero, so that they do nothing yet."""
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


# ------------------------------------------------------------------------------------- taking apart
def extract(
    bundle: Bundle, folder: str | Path, layout: str, *, dtype: torch.dtype | None = None
) -> list[Path]:
    """Write a bundle's parts for other programs.

    Args:
        folder: made if it is not there.
        layout: one of
            "diffusers": a folder for each part (`unet`, `motion_adapter`, `vae`, `text_encoder`, …);
            "checkpoint": `checkpoint.safetensors` as Stable Diffusion 1.x, and `image_encoder.safetensors`;
            "animatediff": `motion_module.safetensors` in AnimateDiff's original layout;
            "pia": the same with the nine-channel conv_in, in PIA's order of channels;
            "motion_adapter": diffusers' `MotionAdapter` folder, with conv_in in PIA's order.
            The UNet of the first two takes four channels, as every program expects of it; the other five are in
            the motion adapter and in PIA's layout.
        dtype: stored type; None keeps the weights' own.

    Returns:
        The files written.

    Raises:
        LoopAnimateError: unknown layout, a VAE that a checkpoint cannot hold, or a folder that cannot be written.
    """
    if layout not in _EXTRACTORS:
        raise LoopAnimateError(f"unknown layout {layout!r}; choose one of {', '.join(_EXTRACTORS)}")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoopAnimateError(f"cannot make the folder {folder}: {error.strerror}") from error
    return _EXTRACTORS[layout](bundle, folder, dtype)


def _write_diffusers(bundle: Bundle, folder: Path, dtype: torch.dtype | None) -> list[Path]:
    config, schedule = bundle.config, bundle.config.schedule
    unet, _ = _split_unet(bundle)
    weights = "diffusion_pytorch_model.safetensors"
    written = _write_adapter(bundle, folder, dtype)
    written += _write_network(folder / "unet", weights, unet, _unet_json(config.unet), dtype)
    vae = state_of("vae", bundle.vae)
    written += _write_network(folder / "vae", weights, vae, config.vae, dtype)
    for part, settings, kind, model in (
        ("text_encoder", config.text_encoder, "clip_text_model", "CLIPTextModel"),
        ("image_encoder", config.image_encoder, "clip_vision_model", "CLIPVisionModelWithProjection"),
    ):  # fmt: skip
        described = {**settings, "model_type": kind, "architectures": [model]}
        state = state_of(part, bundle.module(part))
        written += _write_network(folder / part, "model.safetensors", state, described, dtype)
    (folder / "tokenizer").mkdir(exist_ok=True)
    written += write_tokenizer_files(config.tokenizer, folder / "tokenizer")
    scheduler = {
        "_class_name": "DDIMScheduler",
        **vars(schedule),
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    (folder / "scheduler").mkdir(exist_ok=True)
    return [*written, _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)]


def _write_checkpoint(bundle: Bundle, folder: Path, dtype: torch.dtype | None) -> list[Path]:
    config = bundle.config
    if config.vae["_class_name"] != "AutoencoderKL":
        raise LoopAnimateError(
            f"a checkpoint cannot hold this bundle's VAE ({config.vae['_class_name']}); use the diffusers layout"
        )
    if config.tokenizer != "clip":
        raise LoopAnimateError(
            "a checkpoint cannot hold this bundle's own vocabulary; use the diffusers layout"
        )
    unet, _ = _split_unet(bundle)
    levels = len(config.vae["block_out_channels"])
    tensors: dict[str, Tensor] = {}
    for name, tensor in unet.items():
        theirs = layouts.ldm_unet_name(name, config.unet.layers_per_block)
        tensors[layouts.UNET_PREFIX + theirs] = tensor
    for name, tensor in state_of("vae", bundle.vae).items():
        if layouts.is_vae_attention_matrix(name):
            tensor = tensor[..., None, None]
        tensors[layouts.VAE_PREFIX + layouts.ldm_vae_name(name, levels)] = tensor
    for name, tensor in state_of("text_encoder", bundle.text_encoder).items():
        tensors[layouts.TEXT_PREFIX + name] = tensor
    checkpoint, encoder = folder / "checkpoint.safetensors", folder / "image_encoder.safetensors"
    write_tensors(checkpoint, tensors, {"format": "pt"}, dtype)
    write_tensors(encoder, state_of("image_encoder", bundle.image_encoder), {"format": "pt"}, dtype)
    return [checkpoint, encoder]


def _write_animatediff(
    bundle: Bundle, folder: Path, dtype: torch.dtype | None, *, pia: bool = False
) -> list[Path]:
    unet, motion = _split_unet(bundle)
    tensors = {layouts.animatediff_name(name): tensor for name, tensor in motion.state.items()}
    for name, channels in _motion_channels(motion.state).items():
        tensors |= layouts.position_tables(name, bundle.config.unet.max_positions, channels)
    if pia and motion.conv_in is not None:
        tensors |= _pia_conv_in(motion.conv_in, unet["conv_in.bias"])
    path = folder / ("pia.safetensors" if pia else "motion_module.safetensors")
    write_tensors(path, tensors, {"format": "pt"}, dtype)
    return [path]


def _write_pia(bundle: Bundle, folder: Path, dtype: torch.dtype | None) -> list[Path]:
    return _write_animatediff(bundle, folder, dtype, pia=True)


def _write_adapter(bundle: Bundle, folder: Path, dtype: torch.dtype | None) -> list[Path]:
    unet, motion = _split_unet(bundle)
    config = bundle.config.unet
    tensors = dict(motion.state)
    for name, channels in _motion_channels(motion.state).items():
        table = sinusoid(torch.arange(config.max_positions), channels)[None]
        tensors[f"{name}.transformer_blocks.0.pos_embed.pe"] = table
    if motion.conv_in is not None:
        tensors |= _pia_conv_in(motion.conv_in, unet["conv_in.bias"])
    described = {
        "_class_name": "MotionAdapter",
        "block_out_channels": config.block_out_channels,
        "motion_layers_per_block": config.layers_per_block,
        "motion_num_attention_heads": config.motion_num_attention_heads,
        "motion_norm_num_groups": config.norm_num_groups,
        "motion_max_seq_length": config.max_positions,
        "use_motion_mid_block": False,
        "conv_in_channels": config.in_channels,
    }
    weights = "diffusion_pytorch_model.safetensors"
    return _write_network(folder / "motion_adapter", weights, tensors, described, dtype)


_EXTRACTORS: dict[str, Callable[[Bundle, Path, torch.dtype | None], list[Path]]] = {
    "diffusers": _write_diffusers,
    "checkpoint": _write_checkpoint,
    "animatediff": _write_animatediff,
    "pia": _write_pia,
    "motion_adapter": _write_adapter,
}
LAYOUTS = tuple(_EXTRACTORS)


def _split_unet(bundle: Bundle) -> tuple[dict[str, Tensor], Motion]:
    """The Stable Diffusion UNet (four channels) and the motion modules with the whole conv_in."""
    state = state_of("unet", bundle.unet)
    motion = {name: tensor for name, tensor in state.items() if "motion_modules." in name}
    unet = {name: tensor for name, tensor in state.items() if name not in motion}
    whole = unet["conv_in.weight"]
    unet["conv_in.weight"] = whole[:, :4]
    return unet, Motion(motion, whole)


def _pia_conv_in(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {"conv_in.weight": weight[:, list(layouts.PIA_FROM_OURS)], "conv_in.bias": bias}


def _motion_channels(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Motion modules by name, with their channels."""
    end = ".norm.weight"
    return {name.removesuffix(end): len(t) for name, t in state.items() if name.endswith(end)}


def _unet_json(config: LoopUNetConfig) -> dict[str, Any]:
    levels = len(config.block_out_channels)
    return standard_settings("unet") | {
        "attention_head_dim": config.num_attention_heads,
        "block_out_channels": config.block_out_channels,
        "cross_attention_dim": config.cross_attention_dim,
        "down_block_types": ["CrossAttnDownBlock2D"] * (levels - 1) + ["DownBlock2D"],
        "layers_per_block": config.layers_per_block,
        "norm_eps": config.norm_eps,
        "norm_num_groups": config.norm_num_groups,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (levels - 1),
    }


def _write_network(
    folder: Path,
    weights: str,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    dtype: torch.dtype | None,
) -> list[Path]:
    folder.mkdir(exist_ok=True)
    write_tensors(folder / weights, state, {"format": "pt"}, dtype)
    return [folder / weights, _write_json(folder / "config.json", config)]


def _write_json(path: Path, values: Mapping[str, Any]) -> Path:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return path
