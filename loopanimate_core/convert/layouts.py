"""How other programs name the same tensors, and which kind of file has which names.

Every function maps our name (diffusers') to another program's name; to read a file, the map is inverted
over the names that a network of these sizes has. A key outside the map is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor

from ..bundle.components import require_same_tensors
from ..errors import LoopAnimateError
from ..models.layers import sinusoid

Shapes = Mapping[str, tuple[int, ...]]

# conv_in's channels (Eq. 11): ours are Z_t 0-3, Z_SD 4-7, Z_M 8; PIA's are latent 0-3, mask 4, condition 5-8.
OURS_FROM_PIA = (0, 1, 2, 3, 5, 6, 7, 8, 4)
PIA_FROM_OURS = (0, 1, 2, 3, 8, 4, 5, 6, 7)

# Half-precision storage moves a sinusoid by up to 0.015; neighbouring rows differ by about 3.
POSITION_TOLERANCE = 2e-2

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."

# Other tensors in checkpoints of Stable Diffusion 1.x: averages of the training, losses, and the noise
# schedule in many forms (a bundle has its own).
_IGNORED_PREFIXES = ("model_ema.", "first_stage_model.model_ema.", "first_stage_model.loss.")
_IGNORED = frozenset(
    [
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "betas",
        "log_one_minus_alphas_cumprod",
        "logvar",
        "lvlb_weights",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "posterior_variance",
        "scale_factor",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "cond_stage_model.logit_scale",
        "cond_stage_model.text_projection",
    ]
)
_POSITION_IDS = "position_ids"


# ------------------------------------------------------------------------------------ recognising
_MOTION = "motion_modules."
_MOTION_FILES = "motion modules of AnimateDiff v1, v2 or v3 and PIA for Stable Diffusion 1.x"
_CHECKPOINTS = "checkpoints of Stable Diffusion 1.x"


def kind_of(names: Collection[str], where: object) -> str:
    """The kind of a file of tensors, from its keys alone.

    Args:
        names: the keys, without wrappers.
        where: the file, for messages.

    Returns:
        "checkpoint" (single-file Stable Diffusion 1.x), "ldm_vae", "unet", "vae", "tiny_vae", "text_encoder",
        "image_encoder", "clip" (both encoders), "animatediff" (its original layout) or "motion_adapter"
        (diffusers').

    Raises:
        LoopAnimateError: another kind of file; the message names it if it is known.
    """
    for matches, name, accepted in _REJECTED:
        if matches(names):
            raise LoopAnimateError(f"{where} is {name}; expected {accepted}")
    for kind, matches in _KINDS.items():
        if matches(names):
            return kind
    example = min(names, default="nothing")
    raise LoopAnimateError(f"{where} has an unknown layout; its first tensor is {example!r}")


def _any(pattern: str) -> Callable[[Collection[str]], bool]:
    compiled = re.compile(pattern)
    return lambda names: any(compiled.search(name) for name in names)


def _all(*predicates: Callable[[Collection[str]], bool]) -> Callable[[Collection[str]], bool]:
    return lambda names: all(predicate(names) for predicate in predicates)


def _not(predicate: Callable[[Collection[str]], bool]) -> Callable[[Collection[str]], bool]:
    return lambda names: not predicate(names)


_has_motion = _any(r"(^|\.)motion_modules\.")
_original = _any(r"motion_modules\.\d+\.temporal_transformer\.")

_REJECTED: tuple[tuple[Callable[[Collection[str]], bool], str, str], ...] = (
    (
        _any(r"lora_(up|down|A|B)\b|_lora\.|^lora_(unet|te)"),
        "a LoRA (changes to weights, not weights)",
        f"{_MOTION_FILES} and {_CHECKPOINTS}",
    ),
    (
        _any(r"controlnet_cond_embedding|^control_model\.|input_hint_block"),
        "a ControlNet or SparseCtrl",
        _MOTION_FILES,
    ),
    (
        _any(r"temporal_attentions\."),
        "a HotshotXL motion module, for Stable Diffusion XL",
        _MOTION_FILES,
    ),
    (_any(r"^FancyVideo|fps_embedding\."), "a FancyVideo motion module", _MOTION_FILES),
    (_any(r"^img_encoder\."), "AnimateLCM's image-to-video module", _MOTION_FILES),
    (
        _all(_original, _not(_any(r"pos_encoder\.pe$"))),
        "a motion module without position tables, such as AnimateLCM's",
        _MOTION_FILES,
    ),
    (
        _all(_has_motion, _not(_any(r"down_blocks\.3\.motion_modules"))),
        "a motion module with fewer than four levels, for Stable Diffusion XL",
        _MOTION_FILES,
    ),
    (
        _any(r"^conditioner\.embedders\.|label_emb\.|^add_embedding\."),
        "a Stable Diffusion XL model",
        _CHECKPOINTS,
    ),
    (
        _any(r"^cond_stage_model\.model\.transformer\."),
        "a Stable Diffusion 2.x checkpoint",
        _CHECKPOINTS,
    ),
    (
        _any(r"^cond_stage_model\.model\.visual\."),
        "an original sd-image-variations checkpoint",
        f"its diffusers folder and {_CHECKPOINTS}",
    ),
    (
        _any(r"joint_blocks\.|double_blocks\."),
        "a model of another architecture than Stable Diffusion 1.x",
        _CHECKPOINTS,
    ),
)

_KINDS: dict[str, Callable[[Collection[str]], bool]] = {
    "checkpoint": _any(r"^model\.diffusion_model\."),
    "animatediff": _original,
    "motion_adapter": _has_motion,
    "unet": _any(r"^down_blocks\.0\.resnets\.0\.conv1\.weight$"),
    "ldm_vae": _any(r"^(first_stage_model\.)?encoder\.down\.0\.block\.0\.conv1\.weight$"),
    "vae": _any(r"^encoder\.down_blocks\.0\.resnets\.0\.conv1\.weight$"),
    "tiny_vae": _any(r"^encoder\.layers\.0\.weight$"),
    "clip": _all(
        _any(r"^vision_model\."), _any(r"^(text_model\.)?embeddings\.token_embedding\.weight$")
    ),
    "image_encoder": _any(r"^vision_model\."),
    "text_encoder": _any(
        r"^(cond_stage_model\.transformer\.)?(text_model\.)?embeddings\.token_embedding\.weight$"
    ),
}


# ------------------------------------------------------------------------------- Stable Diffusion
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def ldm_unet_name(name: str, layers_per_block: int) -> str:
    """A UNet tensor's name in a single-file checkpoint, without `model.diffusion_model.`."""
    stem, _, leaf = name.rpartition(".")
    if stem in _ENDS:
        return f"{_ENDS[stem]}.{leaf}"
    match = re.fullmatch(r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.(\w+)\.(\d+)\.(.+)", name)
    if match is None:
        raise ValueError(f"{name} is not a tensor of a UNet")
    part, block, layer_kind, layer, rest = match.groups()
    block, layer, step = int(block or 0), int(layer), layers_per_block + 1
    if layer_kind == "resnets":
        layer_name, _, leaf = rest.partition(".")
        rest = f"{_RESNET[layer_name]}.{leaf}"
    if part == "mid_block":
        return f"middle_block.{1 if layer_kind == 'attentions' else 2 * layer}.{rest}"
    if layer_kind == "downsamplers":
        return f"input_blocks.{(block + 1) * step}.0.op.{rest.removeprefix('conv.')}"
    if layer_kind == "upsamplers":  # after the block's last layer, and its attention if it has one
        return f"output_blocks.{block * step + step - 1}.{1 if block == 0 else 2}.{rest}"
    side, first = ("input_blocks", 1) if part == "down_blocks" else ("output_blocks", 0)
    slot = 1 if layer_kind == "attentions" else 0
    return f"{side}.{first + block * step + layer}.{slot}.{rest}"


_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_VAE_ATTENTION_NAME = re.compile(r"(\w+)\.mid_block\.attentions\.0\.(.+)\.(weight|bias)")


def ldm_vae_name(name: str, levels: int) -> str:
    """An AutoencoderKL tensor's name in a single-file checkpoint, without `first_stage_model.`."""
    if match := _VAE_ATTENTION_NAME.fullmatch(name):
        half, layer, leaf = match.groups()
        return f"{half}.mid.attn_1.{_VAE_ATTENTION[layer]}.{leaf}"
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"\.down_blocks\.(\d+)\.", r".down.\1.", name)
    name = re.sub(r"\.up_blocks\.(\d+)\.", lambda m: f".up.{levels - 1 - int(m[1])}.", name)
    name = name.replace(".resnets.", ".block.").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("downsamplers.0.", "downsample.").replace("upsamplers.0.", "upsample.")
    return name.replace("conv_norm_out", "norm_out")


def is_vae_attention_matrix(name: str) -> bool:
    """Whether an AutoencoderKL's tensor is a matrix in diffusers and a 1 × 1 convolution in single files."""
    return re.search(r"mid_block\.attentions\.0\.to_(q|k|v|out\.0)\.weight$", name) is not None


def single_file_vae(state: Mapping[str, Tensor], where: object) -> dict[str, Tensor]:
    """The VAE of a checkpoint or of a VAE file, with its 1 × 1 convolutions as matrices."""
    if any(name.startswith((VAE_PREFIX, UNET_PREFIX)) for name in state):
        state = split_checkpoint(state, where)["vae"]
    attention = re.compile(r"\.mid\.attn_1\.(q|k|v|proj_out)\.weight$")
    return {
        name: tensor.flatten(1) if attention.search(name) else tensor
        for name, tensor in state.items()
        if not name.startswith(("loss.", "model_ema."))
    }


def modern_vae_name(name: str) -> str:
    """The present name of an AutoencoderKL tensor from diffusers before 0.13 (as in sd-image-variations)."""
    for old, new in {
        "query": "to_q",
        "key": "to_k",
        "value": "to_v",
        "proj_attn": "to_out.0",
    }.items():
        name = re.sub(rf"(mid_block\.attentions\.0\.){old}\.", rf"\g<1>{new}.", name)
    return name


def split_checkpoint(state: Mapping[str, Tensor], where: object) -> dict[str, dict[str, Tensor]]:
    """Split a single-file checkpoint into unet, vae and text_encoder, without prefixes.

    Averages of the training and the noise schedule are skipped.

    Raises:
        LoopAnimateError: a key belongs to none of them.
    """
    parts: dict[str, dict[str, Tensor]] = {"unet": {}, "vae": {}, "text_encoder": {}}
    prefixes = {"unet": UNET_PREFIX, "vae": VAE_PREFIX, "text_encoder": TEXT_PREFIX}
    for name, tensor in state.items():
        if name in _IGNORED or name.startswith(_IGNORED_PREFIXES):
            continue
        part = next((part for part, prefix in prefixes.items() if name.startswith(prefix)), None)
        if part is None:
            raise LoopAnimateError(f"{where} has an unknown tensor {name!r}")
        parts[part][name.removeprefix(prefixes[part])] = tensor
    return parts


def classic_text_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP text encoder's tensors under `text_model.`, from any file that has one."""
    found = {}
    for name, tensor in state.items():
        name = name.removeprefix(TEXT_PREFIX)
        if name.endswith(_POSITION_IDS) or name in ("text_projection.weight", "logit_scale"):
            continue
        if name.startswith(("embeddings.", "encoder.", "final_layer_norm.")):
            name = "text_model." + name
        if not name.startswith(("vision_model.", "visual_projection.")):
            found[name] = tensor
    return found


def vision_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP image encoder's tensors, from a file that may have all of CLIP."""
    return {
        name: tensor
        for name, tensor in state.items()
        if not name.endswith(_POSITION_IDS)
        and not name.startswith(("text_model.", "text_projection.", "logit_scale"))
    }


# ----------------------------------------------------------------------------------- motion modules
_BLOCK = "transformer_blocks.0."


def animatediff_name(name: str) -> str:
    """A motion module tensor's name in AnimateDiff's original layout."""
    name = re.sub(r"(motion_modules\.\d+\.)", r"\1temporal_transformer.", name)
    name = re.sub(r"\.attn([12])\.", lambda m: f".attention_blocks.{int(m[1]) - 1}.", name)
    name = re.sub(r"\.norm([12])\.", lambda m: f".norms.{int(m[1]) - 1}.", name)
    return name.replace(".norm3.", ".ff_norm.")


def name_from_animatediff(name: str) -> str:
    """The inverse of `animatediff_name`."""
    name = name.replace(".temporal_transformer.", ".").replace(".ff_norm.", ".norm3.")
    name = re.sub(r"\.attention_blocks\.([01])\.", lambda m: f".attn{int(m[1]) + 1}.", name)
    return re.sub(r"\.norms\.([01])\.", lambda m: f".norm{int(m[1]) + 1}.", name)


def is_unet_tensor(name: str) -> bool:
    """Whether a name belongs to the UNet around motion modules (training checkpoints have both)."""
    return (
        re.match(r"(conv_(in|out|norm_out)|time_embedding|(down|up)_blocks|mid_block)\.", name)
        is not None
    )


def without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Each key of a file, with its name without the prefixes that trainers add (`module.`, `unet.`)."""
    return {name: re.sub(r"^((module|unet)\.)+", "", name) for name in names}


def is_position_table(name: str) -> bool:
    """Whether a motion module's tensor is its position table, which LoopUNet computes."""
    return name.endswith(("pos_encoder.pe", "pos_embed.pe"))


def require_sinusoid(name: str, table: Tensor, where: object) -> None:
    """Raise LoopAnimateError unless a position table `[1, L, C]` is the sinusoid that LoopUNet computes.

    AnimateDiff, PIA and diffusers all store that untrained sinusoid, so that a table of 24 or 32 positions
    extends exactly. The trained or stretched tables of some community modules cannot be used.
    """
    positions = sinusoid(torch.arange(table.shape[-2]), table.shape[-1])
    error = (table.reshape(positions.shape).float() - positions).abs().max().item()
    if not error <= POSITION_TOLERANCE:
        raise LoopAnimateError(
            f"{where}: {name!r} differs from AnimateDiff's sinusoid by {error:.2g}; trained or stretched "
            "position tables cannot be used"
        )


def position_tables(name_of_module: str, positions: int, channels: int) -> dict[str, Tensor]:
    """The position tables of one motion module in AnimateDiff's layout, `[1, positions, channels]` each."""
    table = sinusoid(torch.arange(positions), channels)[None]
    stem = f"{name_of_module}.temporal_transformer.{_BLOCK}attention_blocks"
    return {f"{stem}.{i}.pos_encoder.pe": table.clone() for i in (0, 1)}


# ------------------------------------------------------------------------------------- applying maps
def rename_to_ours(
    state: Mapping[str, Tensor],
    ours: Shapes,
    their_name: Callable[[str], str],
    where: object,
) -> dict[str, Tensor]:
    """Rename the tensors of a file to our names.

    Args:
        state: tensors under their names in the file.
        ours: our names and shapes.
        their_name: our name → theirs.
        where: the file, for messages.

    Raises:
        LoopAnimateError: a tensor is unknown, missing or has another shape; the message has its name in the
            file.
    """
    names = {their_name(name): name for name in ours}
    require_same_tensors(
        str(where),
        {theirs: ours[name] for theirs, name in names.items()},
        {theirs: tuple(tensor.shape) for theirs, tensor in state.items()},
    )
    return {names[theirs]: tensor for theirs, tensor in state.items()}
