"""ComfyUI's model patches and ControlNets on LoopUNet: where they act, and which of them are refused.

LoopUNet's layers stand in the order of ComfyUI's own Stable Diffusion 1.x network, so a patch finds the feature maps
it was written for: self-attention within a frame, the results of the down path, what the up path reads. It gets the
frames of a clip as the rows of a batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import comfy.controlnet
import comfy.model_sampling
from torch import Tensor

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models.layers import Attention

log = logging.getLogger("loopanimate")

Place = tuple[str, int]
"""A block in ComfyUI's numbering, such as ("input", 4)."""

APPLIED = {
    "attn1_patch",
    "attn1_output_patch",
    "input_block_patch",
    "input_block_patch_after_skip",
    "output_block_patch",
}
"""The kinds of patches that LoopUNet applies."""

REFUSED_PROMPTS = {
    "concat_latent_image": "InpaintModelConditioning and InstructPixToPix are for other models; the mask of"
    " Build Loop Conditions says what moves",
    "unclip_conditioning": "unCLIP Conditioning is for unCLIP models; LoopAnimate sees its picture through"
    " Build Loop Conditions",
    "reference_latents": "Reference Latent is for editing models; LoopAnimate sees its picture through"
    " Build Loop Conditions",
    "gligen": "GLIGEN is not made for LoopAnimate; use the mask of Build Loop Conditions",
}
"""What a prompt may hold that would have no effect, and what to say of it."""

USED_OF_PROMPTS = {
    *(
        "cross_attn",
        "pooled_output",
        "attention_mask",
        "model_conds",
        "uuid",
        "prompt_type",
        "default",
    ),
    *("noise", "device", "latent_image", "denoise_mask", "seed", "width", "height", "hooks"),
    *("area", "strength", "mask", "mask_strength", "set_area_to_bounds", "control"),
    *("start_percent", "end_percent", "timestep_start", "timestep_end", "control_apply_to_uncond"),
    *("clip_start_percent", "clip_end_percent", "cross_attn_controlnet"),
}
"""What ComfyUI's samplers use of a prompt, whatever the model."""


class ActivePatches:
    """The patches and the ControlNet of one call of the network.

    Args:
        options: ComfyUI's `transformer_options`.
        control: residuals by part ("input", "middle", "output"), each list used from its end; rows as those of the
            clip, or one for all.
        shape: of the network's input, `[B*F, 4, h, w]`.
    """

    def __init__(
        self, options: Mapping[str, Any], control: Mapping[str, Any] | None, shape: Iterable[int]
    ) -> None:
        refuse_kinds(options)
        self.patches: Mapping[str, list[Callable[..., Any]]] = options.get("patches", {})
        self.replaced: Mapping[Any, Callable[..., Any]] = options.get("patches_replace", {}).get(
            "attn1", {}
        )
        self.control = {part: list(residuals) for part, residuals in (control or {}).items()}
        apart = {k: v for k, v in options.items() if k not in ("patches", "patches_replace")}
        self.options: dict[str, Any] = {**apart, "original_shape": list(shape)}

    def copy(self) -> ActivePatches:
        """For one more try of the same call: the residuals are used up by each."""
        return ActivePatches(
            {**self.options, "patches": self.patches, "patches_replace": {"attn1": self.replaced}},
            self.control,
            self.options["original_shape"],
        )

    @property
    def any(self) -> bool:
        return bool(self.control or self.replaced or set(self.patches) & APPLIED)

    @property
    def before_the_prompt(self) -> bool:
        """Whether something acts on the down path, so that guidance branches may differ there."""
        on_the_way_up = {"output_block_patch"}
        patched = {kind for kind, patches in self.patches.items() if patches} & APPLIED
        return bool(self.replaced or self.control.get("input") or patched - on_the_way_up)

    def down(self, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """The `index`-th result of the down path: what is kept for the up path, and what the down path goes on with."""
        options = self._at(("input", index))
        x = self._controlled(x, "input")
        for patch in self.patches.get("input_block_patch", ()):
            x = patch(x, options)
        kept = x
        for patch in self.patches.get("input_block_patch_after_skip", ()):
            x = patch(x, options)
        return kept, x

    def middle(self, x: Tensor) -> Tensor:
        return self._controlled(x, "middle")

    def up(self, x: Tensor, skip: Tensor, index: int) -> tuple[Tensor, Tensor]:
        options = self._at(("output", index))
        skip = self._controlled(skip, "output")
        for patch in self.patches.get("output_block_patch", ()):
            x, skip = patch(x, skip, options)
        return x, skip

    def self_attention(self, attention: PatchableAttention, x: Tensor) -> Tensor:
        """Self-attention within frames, `[rows, L, C]`."""
        place = attention.place
        options = {
            **self._at(place),
            "block_index": 0,
            "n_heads": attention.heads,
            "dim_head": x.shape[-1] // attention.heads,
            "attn_precision": None,
        }
        queried, keyed, valued = x, x, x
        for patch in self.patches.get("attn1_patch", ()):
            queried, keyed, valued = patch(queried, keyed, valued, options)
        parts = attention.to_q(queried), attention.to_k(keyed), attention.to_v(valued)
        replace = self.replaced.get((*place, 0)) or self.replaced.get(place)
        out = replace(*parts, options) if replace else attention.attend_to(*parts)
        out = attention.to_out[0](out)
        for patch in self.patches.get("attn1_output_patch", ()):
            out = patch(out, options)
        return out

    def _at(self, place: Place) -> dict[str, Any]:
        self.options["block"] = place
        return self.options

    def _controlled(self, x: Tensor, part: str) -> Tensor:
        residual = self.control[part].pop() if self.control.get(part) else None
        if residual is None:
            return x
        if residual.shape[1:] != x.shape[1:] or len(x) % len(residual):
            raise LoopAnimateError(
                f"this ControlNet is made for another network: it adds {list(residual.shape[1:])} to"
                f" {list(x.shape[1:])}; ControlNets for Stable Diffusion 1.x work with models of that size"
            )
        return x + residual.to(x).repeat(len(x) // len(residual), 1, 1, 1)


class PatchableAttention(Attention):
    """Self-attention whose inputs and outputs patches may change; a layer becomes one by `make_patchable`."""

    place: Place
    network: Any
    """What holds `active`, the patches of the running call."""

    def forward(self, x: Tensor) -> Tensor:
        active = self.network.active
        return super().forward(x) if active is None else active.self_attention(self, x)

    def attend_to(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """softmax(Q·Kᵀ/√d)·V of `[B, L, C]`.

        As in ComfyUI's attention, keys and values are read as as many rows as the queries have: HyperTile cuts
        the queries into tiles and relies on it.
        """
        key, value = (part.reshape(len(query), -1, part.shape[-1]) for part in (key, value))
        out = self.scaled_dot_product(*map(self._split, (query, key, value)))
        return out.transpose(1, 2).flatten(2)


class Running:
    """Which patches are active now; shared by the attention layers of one network."""

    active: ActivePatches | None = None


def make_patchable(unet: Any, running: Running) -> None:
    """Let patches reach the self-attention of every spatial transformer of a LoopUNet."""
    index = 0  # conv_in is block 0
    for block in unet.down_blocks:
        for i in range(len(block.resnets)):
            index += 1
            if block.attentions:
                _patchable(block.attentions[i], ("input", index), running)
        index += hasattr(block, "downsamplers")
    _patchable(unet.mid_block.attentions[0], ("middle", 0), running)
    index = 0
    for block in unet.up_blocks:
        for i in range(len(block.resnets)):
            if block.attentions:
                _patchable(block.attentions[i], ("output", index), running)
            index += 1


def _patchable(transformer: Any, place: Place, running: Running) -> None:
    attention = transformer.transformer_blocks[0].attn1
    attention.__class__ = PatchableAttention
    attention.place, attention.network = place, running


# ----------------------------------------------------------------------------------------------- refusals
def refuse_model_patches(model_options: Mapping[str, Any]) -> None:
    """Raises LoopAnimateError for a patch of the model that would do nothing, or ruin the loop."""
    options = model_options.get("transformer_options", {})
    if model_options.get("context_handler") is not None:
        raise LoopAnimateError(
            "Context Windows do not work with LoopAnimate; use closing 'windows' in Loop Sampler for long loops"
        )
    if "easycache" in options:
        raise LoopAnimateError(
            "EasyCache and LazyCache do not work with LoopAnimate: they save steps by assuming that the first frame"
            " is like the last; for speed use preset 'fast' in Loop Sampler"
        )
    refuse_kinds(options)
    replaced = options.get("patches_replace", {}).get("attn1", {})
    for patch in replaced.values():
        if getattr(patch, "__qualname__", "").startswith("SelfAttentionGuidance"):
            raise LoopAnimateError(
                "Self-Attention Guidance does not work with LoopAnimate, because the network sees the first frame"
                " twice; Perturbed-Attention Guidance does a similar thing and works"
            )


def refuse_kinds(options: Mapping[str, Any]) -> None:
    """Raises LoopAnimateError if `transformer_options` hold a kind of patch that LoopUNet does not apply."""
    if (options.get("ad_params") or {}).get("sub_idxs") is not None:
        raise LoopAnimateError(
            "AnimateDiff-Evolved's context options are for its own models; use closing 'windows' in Loop Sampler for"
            " long loops"
        )
    for group, applied in (("patches", APPLIED), ("patches_replace", {"attn1"})):
        for kind, patches in options.get(group, {}).items():
            if patches and kind not in applied:
                raise LoopAnimateError(
                    f"a node changes a part of the network that LoopAnimate's does not have in this form ({kind}), so"
                    " it would do nothing; bypass it (hypernetworks, IPAdapter, skip-layer guidance and the like)"
                )


def refuse_sampling(own: str, sampling: Any) -> None:
    """Raises LoopAnimateError if the network's predictions would be read as something else, which gives noise.

    Args:
        own: what the network predicts, as `prediction_of` says it.
        sampling: ComfyUI's `model_sampling` that reads it.
    """
    read_as = prediction_of(sampling)
    if read_as != own:
        raise LoopAnimateError(
            f"a ModelSampling node makes the sampler read the network's output as {read_as}, but this model predicts"
            f" {own}; bypass the node, or choose {own} in it"
        )


def prediction_of(sampling: Any) -> str:
    """What a `model_sampling` takes the network's output for."""
    kinds = (
        ("edm", "EDM"),
        ("v_prediction", "V_PREDICTION"),
        ("x0", "X0"),
        ("eps", "EPS"),
    )
    for name, kind in kinds:
        if isinstance(sampling, getattr(comfy.model_sampling, kind, ())):
            return name
    return "a flow"


def refuse_prompt(prompt: Mapping[str, Any], network_channels: int) -> None:
    """Look at what nodes have put into a prompt; what only has no effect is named in the log.

    Args:
        network_channels: of the network's first level.

    Raises:
        LoopAnimateError: something that would do nothing or fail.
    """
    for key, sentence in REFUSED_PROMPTS.items():
        if prompt.get(key) is not None:
            raise LoopAnimateError(sentence)
    control = prompt.get("control")
    while control is not None:
        _refuse_control(control, network_channels)
        control = control.previous_controlnet
    for key in sorted(set(prompt) - USED_OF_PROMPTS):
        if not key.startswith("loop_"):
            log.warning("LoopAnimate does not use %r, which a node has added to a prompt", key)


def _refuse_control(control: Any, network_channels: int) -> None:
    if isinstance(control, comfy.controlnet.ControlLora):
        raise LoopAnimateError(
            "Control-LoRAs are made for other models; use a ControlNet for Stable Diffusion 1.x"
        )
    channels = getattr(getattr(control, "control_model", None), "model_channels", network_channels)
    if channels != network_channels:
        raise LoopAnimateError(
            f"this ControlNet is made for a network of {channels} channels, and this model has {network_channels};"
            " ControlNets for Stable Diffusion 1.x need a model of that size"
        )
