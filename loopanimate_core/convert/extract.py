"""Split a bundle into the parts that other programs read.

Files are written tensor by tensor, so that no model is in memory twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bundle import Bundle
from ..bundle.components import state_of
from ..bundle.tensorfile import write_tensors
from ..encoders.tokenizer import write_tokenizer_files
from ..errors import LoopAnimateError
from ..files import atomic_write, make_folder
from ..models import LoopUNetConfig
from ..models.layers import sinusoid
from . import layouts
from .sources import Motion, standard_settings

# The parts with a transformers config: their model_type and class.
_ENCODER_TYPES = {
    "text_encoder": ("clip_text_model", "CLIPTextModel"),
    "image_encoder": ("clip_vision_model", "CLIPVisionModelWithProjection"),
}


def extract(
    bundle: Bundle, folder: str | Path, layout: str, *, dtype: torch.dtype | None = None
) -> list[Path]:
    """Write a bundle's parts for other programs.

    Args:
        folder: created if it does not exist.
        layout: one of
            "diffusers": a folder for each part (`unet`, `motion_adapter`, `vae`, `text_encoder`, …);
            "checkpoint": `checkpoint.safetensors` as Stable Diffusion 1.x, and `image_encoder.safetensors`
            where there is one;
            "animatediff": `motion_module.safetensors` in AnimateDiff's original layout;
            "pia": the same with the nine-channel conv_in, in PIA's order of channels;
            "motion_adapter": diffusers' `MotionAdapter` folder, with conv_in in PIA's order.
            The UNet of the first two takes four channels, as other programs expect; the other five channels are
            in the motion adapter and in PIA's layout.
        dtype: the stored dtype; None keeps that of the weights.

    Returns:
        The files written.

    Raises:
        LoopAnimateError: an unknown layout, a bundle that does not fit the layout, or a folder that cannot be
            written.
    """
    if layout not in _EXTRACTORS:
        raise LoopAnimateError(f"layout must be one of {', '.join(_EXTRACTORS)}, got {layout!r}")
    folder = Path(folder)
    make_folder(folder)
    return _EXTRACTORS[layout](bundle, folder, dtype)


def _write_diffusers(bundle: Bundle, folder: Path, dtype: torch.dtype | None) -> list[Path]:
    config, schedule = bundle.config, bundle.config.schedule
    unet, _ = _split_unet(bundle)
    weights = "diffusion_pytorch_model.safetensors"
    written = _write_adapter(bundle, folder, dtype)
    written += _write_network(folder / "unet", weights, unet, _unet_json(config.unet), dtype)
    vae = state_of("vae", bundle.vae)
    written += _write_network(folder / "vae", weights, vae, config.vae, dtype)
    for part, (model_type, model) in _ENCODER_TYPES.items():
        if part not in config.parts:
            continue
        settings = getattr(config, part)
        described = {**settings, "model_type": model_type, "architectures": [model]}
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
            f"a checkpoint cannot store this bundle's VAE ({config.vae['_class_name']}); use the diffusers layout"
        )
    if config.tokenizer != "clip":
        raise LoopAnimateError(
            "a checkpoint cannot store this bundle's own vocabulary; use the diffusers layout"
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
    if bundle.image_encoder is None:
        return [checkpoint]
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
    """The Stable Diffusion UNet (four channels), and the motion modules with all nine of conv_in."""
    state = state_of("unet", bundle.unet)
    motion = {name: tensor for name, tensor in state.items() if "motion_modules." in name}
    unet = {name: tensor for name, tensor in state.items() if name not in motion}
    whole = unet["conv_in.weight"]
    unet["conv_in.weight"] = whole[:, :4]
    return unet, Motion(motion, whole)


def _pia_conv_in(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {"conv_in.weight": weight[:, list(layouts.PIA_FROM_OURS)], "conv_in.bias": bias}


def _motion_channels(state: Mapping[str, Tensor]) -> dict[str, int]:
    """The names of the motion modules with their numbers of channels."""
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
