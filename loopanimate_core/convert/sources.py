"""Reading one network of a bundle from a diffusers folder or from a single file of another program."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from ..bundle.components import (
    build_on_meta,
    image_encoder_settings,
    shapes_of,
    text_encoder_settings,
    vae_settings,
)
from ..bundle.tensorfile import read_tensors
from ..encoders.tokenizer import TOKENIZER_CLIP, clip_vocabulary, vocabulary_of
from ..errors import LoopAnimateError
from ..files import read_file
from ..models import LoopUNetConfig
from ..parsing import Fields, parse_json
from . import layouts

WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
    "pytorch_model.bin",
    "pytorch_model.fp16.bin",
)
HEAD_CHANNELS = 64  # of every CLIP by OpenAI; single files do not store it


@dataclass
class Source:
    """A network's tensors under our names, and its settings as a bundle stores them."""

    settings: Any
    state: dict[str, Tensor]


MAX_JSON_BYTES = 64 * 2**20


@dataclass
class Folder:
    """The contents of a folder with `config.json` and a file of weights."""

    config: dict[str, Any]
    state: dict[str, Tensor]
    weights: Path


def standard_settings(part: str) -> dict[str, Any]:
    """The settings of a part of Stable Diffusion 1.x (CLIP ViT-L/14 for the encoders)."""
    file = resources.files("loopanimate_core") / "data" / "configs" / f"{part}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def read_folder(path: Path) -> Folder:
    """Read a diffusers or transformers folder of one network."""
    if not (path / "config.json").exists():
        raise LoopAnimateError(f"{path} has no config.json")
    config = _read_json(path / "config.json")
    weights = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)
    if weights is None:
        raise LoopAnimateError(
            f"{path} has no weights; expected one of the files {', '.join(WEIGHT_FILES)}"
        )
    return Folder(config, read_tensors(weights), weights)


def _read_json(path: Path) -> dict[str, Any]:
    """A file with one JSON object."""
    content = read_file(path, "file", MAX_JSON_BYTES)
    return dict(Fields(parse_json(content, str(path)), str(path)).values)


def _subfolder(path: Path, part: str) -> Path:
    """The folder of one network, from the folder of a whole pipeline or of the network."""
    return path / part if (path / part).is_dir() else path


# ------------------------------------------------------------------------------------------ UNet
def read_unet(path: Path) -> Source:
    """Read a Stable Diffusion 1.x UNet with four input channels; its settings are a `LoopUNetConfig`.

    Args:
        path: a pipeline's folder, its `unet` folder, or a single file.
    """
    stated: dict[str, Any] = {}
    if path.is_dir():
        folder = read_folder(_subfolder(path, "unet"))
        path, state = folder.weights, folder.state
        stated = _stated_unet_settings(folder.config, path.parent)
    else:
        state = read_tensors(path)
    kind = layouts.kind_of(state, path)
    if kind == "checkpoint":
        state = layouts.split_checkpoint(state, path)["unet"]
        layers = _ldm_layers_per_block(state, path)
        their_name = partial(layouts.ldm_unet_name, layers_per_block=layers)
    elif kind in ("unet", "motion_adapter"):
        state = {name: tensor for name, tensor in state.items() if "motion_modules." not in name}
        layers = count_of(state, r"down_blocks\.0\.resnets\.(\d+)\.")
        their_name = str
    else:
        raise LoopAnimateError(f"{path} has no Stable Diffusion 1.x UNet (its kind: {kind})")
    config = _unet_config(state, their_name, {"layers_per_block": layers, **stated}, path)
    ours = unet_shapes_without_motion(config)
    return Source(config, layouts.rename_to_ours(state, ours, their_name, path))


def unet_shapes_without_motion(config: LoopUNetConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of the Stable Diffusion UNet in LoopUNet: no motion modules, four input channels."""
    shapes = shapes_of("unet", build_on_meta("unet", replace(config, in_channels=4)))
    return {name: shape for name, shape in shapes.items() if "motion_modules." not in name}


def _stated_unet_settings(config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The settings of a diffusers UNet that cannot be read off its tensors."""
    # Stable Diffusion 1.x stores its number of heads as attention_head_dim
    heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
    if config.get("use_linear_projection") or not isinstance(heads, int):
        raise LoopAnimateError(f"{where} is a Stable Diffusion 2.x or XL UNet, expected 1.x")
    return {
        "num_attention_heads": heads,
        "motion_num_attention_heads": heads,
        "norm_num_groups": config.get("norm_num_groups", 32),
        "norm_eps": config.get("norm_eps", 1e-5),
    }


def count_of(names: Iterable[str], pattern: str) -> int:
    """The number of different values of the pattern's group in the names."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _ldm_layers_per_block(state: Mapping[str, Tensor], where: Path) -> int:
    operators = (re.match(r"input_blocks\.(\d+)\.0\.op\.weight", name) for name in state)
    first = min((int(match[1]) for match in operators if match), default=0)
    if first < 2:
        raise LoopAnimateError(f"{where} does not have all tensors of a Stable Diffusion 1.x UNet")
    return first - 1


def _unet_config(
    state: Mapping[str, Tensor],
    their_name: Callable[[str], str],
    stated: Mapping[str, Any],
    where: Path,
) -> LoopUNetConfig:
    """The UNet's settings: those that are stated, and the sizes of its tensors."""

    def shape(name: str) -> Sequence[int]:
        if (theirs := their_name(name)) not in state:
            raise LoopAnimateError(f"{where} has no tensor {theirs!r}")
        return state[theirs].shape

    if (found := shape("conv_in.weight")[1]) != 4:
        raise LoopAnimateError(
            f"{where} has {found} input channels, expected 4 (9 is an inpainting model)"
        )
    channels, level = [], 0
    while their_name(f"down_blocks.{level}.resnets.0.conv1.weight") in state:
        channels.append(shape(f"down_blocks.{level}.resnets.0.conv1.weight")[0])
        level += 1
    attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    return LoopUNetConfig(
        block_out_channels=tuple(channels), cross_attention_dim=shape(attention)[1], **stated
    )


# ------------------------------------------------------------------------------------------- VAE
def read_vae(path: Path) -> Source:
    """Read an AutoencoderKL (or, from a folder, an AutoencoderTiny).

    Args:
        path: a pipeline's folder, its `vae` folder, a single-file checkpoint, or a VAE's file in either layout.
    """
    settings: dict[str, Any] = {}
    if path.is_dir():
        folder = read_folder(_subfolder(path, "vae"))
        path, state, settings = folder.weights, folder.state, vae_settings(folder.config)
    else:
        state = read_tensors(path)
    kind = layouts.kind_of(state, path)
    their_name: Callable[[str], str] = str
    if kind in ("checkpoint", "ldm_vae"):
        state = layouts.single_file_vae(state, path)
        settings = vae_sizes(state, "down", "block", path)
        their_name = partial(layouts.ldm_vae_name, levels=len(settings["block_out_channels"]))
    elif kind == "vae":
        state = {layouts.modern_vae_name(name): tensor for name, tensor in state.items()}
        settings = settings or vae_sizes(state, "down_blocks", "resnets", path)
    elif kind != "tiny_vae" or not settings:
        raise LoopAnimateError(f"{path} has no Stable Diffusion 1.x VAE (its kind: {kind})")
    ours = shapes_of("vae", build_on_meta("vae", settings))
    return Source(settings, layouts.rename_to_ours(state, ours, their_name, path))


def vae_sizes(state: Mapping[str, Tensor], blocks: str, layers: str, where: Path) -> dict[str, Any]:
    """The settings of a single file's AutoencoderKL, from the shapes of its tensors."""
    channels = []
    while (name := f"encoder.{blocks}.{len(channels)}.{layers}.0.conv2.weight") in state:
        channels.append(state[name].shape[0])
    if not channels:
        raise LoopAnimateError(f"{where} has no VAE")
    return standard_settings("vae") | {
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        "layers_per_block": count_of(state, rf"encoder\.{blocks}\.0\.{layers}\.(\d+)\."),
    }


# ---------------------------------------------------------------------------------------- encoders
def read_text_encoder(path: Path) -> Source:
    """Read a CLIP text encoder.

    Args:
        path: a pipeline's folder, its `text_encoder` folder, a single-file checkpoint or a CLIP's file.
    """
    settings: dict[str, Any] = {}
    if path.is_dir():
        folder = read_folder(_subfolder(path, "text_encoder"))
        path, state, config = folder.weights, folder.state, folder.config
        settings = text_encoder_settings(config.get("text_config", config))
    else:
        state = read_tensors(path)
    kind = layouts.kind_of(state, path)
    if kind == "checkpoint":
        state = layouts.split_checkpoint(state, path)["text_encoder"]
    elif kind not in ("text_encoder", "clip"):
        raise LoopAnimateError(f"{path} has no CLIP text encoder (its kind: {kind})")
    state = layouts.classic_text_encoder(state)
    settings = settings or text_encoder_sizes(state, path)
    ours = shapes_of("text_encoder", build_on_meta("text_encoder", settings))
    return Source(settings, layouts.rename_to_ours(state, ours, str, path))


def text_encoder_sizes(state: Mapping[str, Tensor], where: Path) -> dict[str, Any]:
    """The settings of a single file's CLIP text encoder, from the shapes of its tensors."""
    try:
        vocabulary, width = state["text_model.embeddings.token_embedding.weight"].shape
        positions = state["text_model.embeddings.position_embedding.weight"].shape[0]
        inner = state["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0]
    except KeyError as missing:
        raise LoopAnimateError(f"{where} has no CLIP text encoder: no tensor {missing}") from None
    return standard_settings("text_encoder") | {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "max_position_embeddings": positions,
        "intermediate_size": inner,
        "num_hidden_layers": count_of(state, r"text_model\.encoder\.layers\.(\d+)\."),
        "num_attention_heads": width // HEAD_CHANNELS,
    }


def read_image_encoder(path: Path) -> Source:
    """Read a CLIP image encoder with its projection.

    Args:
        path: a pipeline's folder, its `image_encoder` folder (which may hold a whole CLIP), or a file.
    """
    settings: dict[str, Any] = {}
    if path.is_dir():
        folder = read_folder(_subfolder(path, "image_encoder"))
        path, state = folder.weights, folder.state
        settings = image_encoder_settings(folder.config)
    else:
        state = read_tensors(path)
    kind = layouts.kind_of(state, path)
    if kind not in ("image_encoder", "clip"):
        raise LoopAnimateError(f"{path} has no CLIP image encoder (its kind: {kind})")
    state = layouts.vision_encoder(state)
    settings = settings or image_encoder_sizes(state, path)
    ours = shapes_of("image_encoder", build_on_meta("image_encoder", settings))
    return Source(settings, layouts.rename_to_ours(state, ours, str, path))


def image_encoder_sizes(state: Mapping[str, Tensor], where: Path) -> dict[str, Any]:
    """The settings of a single file's CLIP image encoder, from the shapes of its tensors."""
    try:
        projection, width = state["visual_projection.weight"].shape
        patch = state["vision_model.embeddings.patch_embedding.weight"].shape[-1]
        places = state["vision_model.embeddings.position_embedding.weight"].shape[0] - 1
        inner = state["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0]
    except KeyError as missing:
        raise LoopAnimateError(f"{where} has no CLIP image encoder: no tensor {missing}") from None
    return standard_settings("image_encoder") | {
        "hidden_size": width,
        "projection_dim": projection,
        "patch_size": patch,
        "image_size": patch * math.isqrt(places),
        "intermediate_size": inner,
        "num_hidden_layers": count_of(state, r"vision_model\.encoder\.layers\.(\d+)\."),
        "num_attention_heads": width // HEAD_CHANNELS,
    }


def read_tokenizer(path: Path) -> str | dict[str, Any]:
    """The tokenizer entry for a text encoder: the vocabulary in its folder if there is one, else CLIP's."""
    folder = _subfolder(path, "tokenizer")
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        return TOKENIZER_CLIP
    lines = read_file(merges, "file", MAX_JSON_BYTES).decode(errors="replace").splitlines()
    spec = {
        "vocab": _read_json(vocabulary),
        "merges": [line for line in lines if line and not line.startswith("#version")],
    }
    return TOKENIZER_CLIP if vocabulary_of(spec) == clip_vocabulary() else spec


# ------------------------------------------------------------------------------------ motion module
@dataclass
class Motion:
    """Motion modules under our names.

    Attributes:
        conv_in: `[C, 9, 3, 3]` in our channel order, if the file has one.
        settings: fields of LoopUNetConfig, if a folder's config has them.
        norm_num_groups: likewise; it must be equal to the UNet's.
    """

    state: dict[str, Tensor]
    conv_in: Tensor | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    norm_num_groups: int | None = None


def read_motion(path: Path) -> Motion:
    """Read motion modules: AnimateDiff v1, v2 or v3 in the original or diffusers' layout, or PIA.

    Position tables are checked and skipped, because LoopUNet computes them. v2's middle block is skipped.

    Args:
        path: a file, or a diffusers `MotionAdapter` (or `UNetMotionModel`) folder.

    Warns:
        UserWarning: a middle block was skipped.
    """
    config: dict[str, Any] = {}
    if path.is_dir():
        folder = read_folder(_subfolder(path, "motion_adapter"))
        path, state, config = folder.weights, folder.state, folder.config
    else:
        state = read_tensors(path)
    state = {new: state[old] for old, new in layouts.without_wrappers(state).items()}
    kind = layouts.kind_of(state, path)
    if kind not in ("animatediff", "motion_adapter"):
        raise LoopAnimateError(f"{path} has no motion modules (its kind: {kind})")
    conv_in = state.pop("conv_in.weight", None)
    if conv_in is not None and conv_in.shape[1] == 9:
        conv_in = conv_in[:, list(layouts.OURS_FROM_PIA)]
    else:
        conv_in = None
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if layouts.is_position_table(name):
            layouts.require_sinusoid(name, tensor, path)
        elif "motion_modules." in name:
            tensors[name] = tensor
        elif not layouts.is_unet_tensor(name):
            raise LoopAnimateError(f"{path} has an unknown tensor {name!r}")
    if middle := [name for name in tensors if name.startswith("mid_block.")]:
        warnings.warn(
            f"{path}: the motion module of the middle block (AnimateDiff v2) is skipped; LoopUNet has none there",
            stacklevel=2,
        )
        for name in middle:
            del tensors[name]
    if kind == "animatediff":
        tensors = {layouts.name_from_animatediff(name): t for name, t in tensors.items()}
    settings = {}
    if heads := config.get("motion_num_attention_heads"):
        settings["motion_num_attention_heads"] = heads
    if positions := config.get("motion_max_seq_length"):
        settings["max_positions"] = max(positions, LoopUNetConfig.max_positions)
    return Motion(tensors, conv_in, settings, config.get("motion_norm_num_groups"))
