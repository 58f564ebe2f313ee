"""The four networks of a bundle: their settings, building them on the meta device, loading weights.

Only the settings that decide the architecture are stored, so that a file written with one version of
diffusers or transformers can be read with another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.clip import ImageEncoder, TextEncoder
from ..errors import LoopAnimateError
from ..models import LoopUNet, LoopUNetConfig

PARTS = ("unet", "vae", "text_encoder", "image_encoder")

_CLIP_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
)
TEXT_FIELDS = (
    *_CLIP_FIELDS,
    "vocab_size",
    "max_position_embeddings",
    "bos_token_id",
    "eos_token_id",
)
IMAGE_FIELDS = (*_CLIP_FIELDS, "image_size", "patch_size", "num_channels")
VAE_FIELDS = {
    "AutoencoderKL": (
        "in_channels",
        "out_channels",
        "down_block_types",
        "up_block_types",
        "block_out_channels",
        "layers_per_block",
        "act_fn",
        "latent_channels",
        "norm_num_groups",
        "scaling_factor",
    ),
    "AutoencoderTiny": (
        "in_channels",
        "out_channels",
        "encoder_block_out_channels",
        "decoder_block_out_channels",
        "act_fn",
        "upsample_fn",
        "latent_channels",
        "upsampling_scaling_factor",
        "num_encoder_blocks",
        "num_decoder_blocks",
        "latent_magnitude",
        "latent_shift",
        "scaling_factor",
    ),
}

# diffusers' defaults for what a config of AutoencoderTiny may leave out
TINY_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "encoder_block_out_channels": (64, 64, 64, 64),
    "decoder_block_out_channels": (64, 64, 64, 64),
    "act_fn": "relu",
    "upsample_fn": "nearest",
    "latent_channels": 4,
    "upsampling_scaling_factor": 2,
    "num_encoder_blocks": (1, 3, 3, 3),
    "num_decoder_blocks": (3, 3, 3, 1),
}

# The scaling factors of configs without one (such as sd-image-variations').
VAE_SCALING_FACTORS = {"AutoencoderKL": 0.18215, "AutoencoderTiny": 1.0}


# ------------------------------------------------------------------------------------- settings
def vae_settings(config: Mapping[str, Any], class_name: str | None = None) -> dict[str, Any]:
    """The settings that a bundle stores of a VAE's diffusers config."""
    class_name = class_name or str(config.get("_class_name", "AutoencoderKL"))
    if class_name not in VAE_FIELDS:
        raise LoopAnimateError(
            f"the VAE's class must be one of {', '.join(VAE_FIELDS)}, got {class_name!r}"
        )
    if config.get("shift_factor"):
        raise LoopAnimateError(
            "a VAE with a shift_factor is not a VAE of Stable Diffusion 1.x, got"
            f" {config['shift_factor']}"
        )
    settings = {"_class_name": class_name, "scaling_factor": VAE_SCALING_FACTORS[class_name]}
    return settings | _chosen(config, VAE_FIELDS[class_name])


def text_encoder_settings(config: Any) -> dict[str, Any]:
    """The settings that a bundle stores of a `CLIPTextConfig` (or its JSON)."""
    return _chosen(_as_mapping(config), TEXT_FIELDS)


def image_encoder_settings(config: Any) -> dict[str, Any]:
    """The settings that a bundle stores of a `CLIPVisionConfig`, or of the JSON of a whole CLIP."""
    values = _as_mapping(config)
    if "vision_config" in values:
        values = {**values["vision_config"], "projection_dim": values.get("projection_dim", 512)}
    return _chosen(values, IMAGE_FIELDS)


def _as_mapping(config: Any) -> Mapping[str, Any]:
    return config if isinstance(config, Mapping) else config.to_dict()


def _chosen(config: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    chosen = {name: config[name] for name in fields if config.get(name) is not None}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in chosen.items()}  # as in JSON


# ------------------------------------------------------------------------------------- building
def build_on_meta(part: str, config: Any) -> nn.Module:
    """Build a part on the "meta" device, without memory for weights; `config` is its entry in a bundle.

    Raises:
        LoopAnimateError: the settings are not valid.
    """
    builders = {
        "unet": _build_unet,
        "vae": _build_vae,
        "text_encoder": _build_text_encoder,
        "image_encoder": _build_image_encoder,
    }
    try:
        with torch.device("meta"):
            return builders[part](config)
    except LoopAnimateError:
        raise
    except ImportError:
        raise
    except Exception as error:  # libraries raise many kinds for invalid settings
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise LoopAnimateError(f"the settings of the {part} are not valid: {reason[-1]}") from error


def _build_unet(config: LoopUNetConfig) -> nn.Module:
    return LoopUNet(config)


def _build_vae(config: Mapping[str, Any]) -> nn.Module:
    settings = vae_settings(config)  # rejects other classes
    if unknown := sorted(set(config) - set(settings)):
        raise LoopAnimateError(f"the VAE has an unknown setting {unknown[0]!r}")
    if settings.pop("_class_name") == "AutoencoderTiny":
        from ..encoders.tiny_vae import TinyVAE

        return TinyVAE(
            {**TINY_DEFAULTS, **settings}
        )  # without diffusers, which takes seconds to import
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    build: Any = AutoencoderKL
    return build(**settings)


def _build_text_encoder(config: Mapping[str, Any]) -> nn.Module:
    _require_known("text encoder", config, TEXT_FIELDS)
    return TextEncoder(config)


def _build_image_encoder(config: Mapping[str, Any]) -> nn.Module:
    _require_known("image encoder", config, IMAGE_FIELDS)
    return ImageEncoder(config)


def _require_known(what: str, config: Mapping[str, Any], fields: Iterable[str]) -> None:
    if unknown := sorted(set(config) - set(fields)):
        raise LoopAnimateError(f"the {what} has an unknown setting {unknown[0]!r}")


# ------------------------------------------------------------------------------------- weights
def classic_names(part: str, names: Iterable[str]) -> dict[str, str]:
    """Map a module's own parameter names to the names in files.

    transformers 5 removed `text_model.` from CLIPTextModel, and so has our TextEncoder; files keep it for ComfyUI
    and older tools.
    """
    if part != "text_encoder":
        return {name: name for name in names}
    return {
        name: name if name.startswith("text_model.") else "text_model." + name for name in names
    }


def shapes_of(part: str, module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a module's tensors, by their names in files."""
    state = module.state_dict()
    return {new: tuple(state[old].shape) for old, new in classic_names(part, state).items()}


def state_of(part: str, module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors, by their names in files; they are not copied."""
    state = module.state_dict()
    return {new: state[old] for old, new in classic_names(part, state).items()}


def require_same_tensors(
    what: str, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise LoopAnimateError with the first unknown, missing or wrongly shaped tensor of `what`."""
    if unknown := sorted(set(found) - set(expected)):
        raise LoopAnimateError(f"{what} has an unknown tensor {unknown[0]!r}{_more(unknown)}")
    if missing := sorted(set(expected) - set(found)):
        raise LoopAnimateError(f"{what} has no tensor {missing[0]!r}{_more(missing)}")
    wrong = [name for name in expected if tuple(found[name]) != tuple(expected[name])]
    if wrong:
        name = wrong[0]
        raise LoopAnimateError(
            f"{what}: tensor {name!r} must have shape {list(expected[name])}, "
            f"got {list(found[name])}{_more(wrong)}"
        )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def load_weights(part: str, module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Load weights, by their names in files, into a module built on meta; tensors are not copied.

    Returns:
        The same module, in eval mode.

    Raises:
        LoopAnimateError: a tensor is unknown, missing or has another shape.
    """
    require_same_tensors(
        f"the {part}", shapes_of(part, module), {k: tuple(v.shape) for k, v in state.items()}
    )
    own = {old: state[new] for old, new in classic_names(part, module.state_dict()).items()}
    module.load_state_dict(own, assign=True)
    return module.eval()
