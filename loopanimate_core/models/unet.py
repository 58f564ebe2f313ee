"""LoopUNet: the denoising network of LoopAnimate.

A Stable Diffusion 1.x UNet with nine input channels (Eq. 11), image embeddings read in the down blocks
and text in the middle and up blocks (MITDF, Eq. 12-15), and a temporal transformer after every layer
(TEMM). Parameter names are those of diffusers' `UNetMotionModel`, so its checkpoints, AnimateDiff's
motion modules and kohya LoRAs fit without tables of names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import LoopAnimateError
from .layers import (
    Condition,
    MotionModule,
    Resample,
    ResnetBlock,
    SpatialTransformer,
    TimeEmbedding,
    split_frames,
)

CONDITIONS = ("image", "text", "none")
NORM_SCOPES = ("per_frame", "clip")


@dataclass(frozen=True)
class LoopUNetConfig:
    """Sizes of the network; the defaults are Stable Diffusion 1.x with AnimateDiff v1 motion modules.

    Attributes:
        routing: what the cross-attention of the down, middle and up blocks reads (rows of Table 4).
        norm_scope: extent of the motion modules' group statistics: `per_frame` as in AnimateDiff's own code,
            `clip` as in diffusers.
        max_positions: TEMM's longest clip in frames.
    """

    in_channels: int = 9
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    cross_attention_dim: int = 768
    num_attention_heads: int = 8
    motion_num_attention_heads: int = 8
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    max_positions: int = 36
    routing: tuple[str, str, str] = ("image", "text", "text")
    norm_scope: str = "per_frame"

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_out_channels", tuple(self.block_out_channels))
        object.__setattr__(self, "routing", tuple(self.routing))
        if len(self.routing) != 3 or any(name not in CONDITIONS for name in self.routing):
            raise LoopAnimateError(
                f"routing must be three of {', '.join(CONDITIONS)} (for down, middle and up), got {self.routing}"
            )
        if self.norm_scope not in NORM_SCOPES:
            raise LoopAnimateError(
                f"norm_scope must be one of {', '.join(NORM_SCOPES)}, got {self.norm_scope!r}"
            )
        for channels in self.block_out_channels:
            for divisor in (
                self.norm_num_groups,
                self.num_attention_heads,
                self.motion_num_attention_heads,
            ):
                if channels % divisor:
                    raise LoopAnimateError(
                        f"block_out_channels must be multiples of {divisor}, got {channels}"
                    )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LoopUNetConfig:
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - names):
            raise LoopAnimateError(
                f"unknown UNet setting {unknown[0]!r}; the settings are {', '.join(sorted(names))}"
            )
        for field in dataclasses.fields(cls):
            if field.name in values:
                _require_kind(field.name, values[field.name], field.default)
        return cls(**values)


def _require_kind(name: str, value: Any, example: Any) -> None:
    """Raises LoopAnimateError for a setting of another type than its default, or a number that is not above 0."""
    if isinstance(example, tuple):
        if not isinstance(value, list | tuple) or not value:
            raise LoopAnimateError(f"{name} of the UNet must be a list, got {value!r}")
        for entry in value:
            _require_kind(name, entry, example[0])
        return
    kinds, legal = {
        str: (str, "a string"),
        int: (int, "a whole number above 0"),
        float: (int | float, "a number above 0"),
    }[type(example)]
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if not fits or (not isinstance(value, str) and not value > 0):
        raise LoopAnimateError(f"{name} of the UNet must be {legal}, got {value!r}")


@dataclass
class SpeedUps:
    """Exact shortcuts; each can be switched off to compare it with the plain form.

    one_token:   attention to a single image token is `to_out(to_v(c))`.
    fold_frames: keys and values of a condition are computed once per clip, for the queries of all its frames.
    shared_down: guidance branches that differ only in the text share the down path, which does not read it.
    shared_skips: the up path's work on results of a shared down path is done once for all branches.
    """

    one_token: bool = True
    fold_frames: bool = True
    shared_down: bool = True
    shared_skips: bool = True


class Block(nn.Module):
    """One resolution: layers of resnet, spatial transformer (not in all blocks) and motion module."""

    def __init__(
        self,
        resnet_channels: list[tuple[int, int]],
        attention: bool,
        motion: bool,
        config: LoopUNetConfig,
        ops: Any,
        factory: dict[str, Any],
    ) -> None:
        super().__init__()
        groups, out = config.norm_num_groups, resnet_channels[-1][1]
        time_channels = 4 * config.block_out_channels[0]
        self.resnets: Any = nn.ModuleList(
            ResnetBlock(a, b, time_channels, groups, config.norm_eps, ops, factory)
            for a, b in resnet_channels
        )
        layers = len(resnet_channels) if motion else len(resnet_channels) - 1
        self.attentions: Any = nn.ModuleList(
            SpatialTransformer(
                out, config.num_attention_heads, groups, config.cross_attention_dim, ops, factory
            )
            for _ in range(layers if attention else 0)
        )
        self.motion_modules: Any = nn.ModuleList(
            MotionModule(
                out, config.motion_num_attention_heads, groups, config.norm_scope, ops, factory
            )
            for _ in range(layers if motion else 0)
        )


class LoopUNet(nn.Module):
    """See the module docstring. `ops` supplies Conv2d, Linear, GroupNorm and LayerNorm.

    Attributes:
        speedups: which exact shortcuts are used.
        gradient_checkpointing: recompute every resnet, spatial transformer and motion module in backward,
            within the motion modules chunk by chunk.
        chunk_frames: run spatial layers on this many frames at a time; None = all.
        chunk_pixels: run temporal layers on this many pixels at a time; None = all.
    """

    def __init__(
        self,
        config: LoopUNetConfig,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        ops: Any = nn,
    ) -> None:
        super().__init__()
        self.config = config
        self.speedups = SpeedUps()
        self.gradient_checkpointing = False
        self.chunk_frames: int | None = None
        self.chunk_pixels: int | None = None

        factory = {"dtype": dtype, "device": device}
        channels, layers = config.block_out_channels, config.layers_per_block
        last = len(channels) - 1
        self.conv_in = ops.Conv2d(config.in_channels, channels[0], 3, padding=1, **factory)
        self.time_embedding = TimeEmbedding(channels[0], ops, factory)

        self.down_blocks: Any = nn.ModuleList()  # of Block
        skip_channels = [channels[0]]
        for level, out in enumerate(channels):
            before = channels[max(level - 1, 0)]
            pairs = [(before if i == 0 else out, out) for i in range(layers)]
            block = Block(pairs, level < last, True, config, ops, factory)
            skip_channels += [out] * layers
            if level < last:
                block.downsamplers = nn.ModuleList([Resample(out, 2, ops, factory)])
                skip_channels.append(out)
            self.down_blocks.append(block)

        middle = [(channels[-1], channels[-1])] * 2
        self.mid_block = Block(middle, True, False, config, ops, factory)

        self.up_blocks: Any = nn.ModuleList()  # of Block
        before = channels[-1]
        for level in reversed(range(len(channels))):
            out = channels[level]
            pairs = [
                ((before if i == 0 else out) + skip_channels.pop(), out) for i in range(layers + 1)
            ]
            block = Block(pairs, level < last, True, config, ops, factory)
            if level > 0:
                block.upsamplers = nn.ModuleList([Resample(out, 1, ops, factory)])
            self.up_blocks.append(block)
            before = out

        self.conv_norm_out = ops.GroupNorm(
            config.norm_num_groups, channels[0], eps=config.norm_eps, **factory
        )
        self.conv_out = ops.Conv2d(channels[0], config.out_channels, 3, padding=1, **factory)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        image_embeds: Tensor,
        text_embeds: Tensor | Condition,
    ) -> Tensor:
        """Predict the noise (or velocity) of a noisy clip.

        Args:
            sample: `[N, 9, F, h, w]`, the condition Z_C of Eq. 11.
            timestep: scalar or `[N]`.
            image_embeds: `[N, T_i, D]`, or `[G*N, T_i, D]` when the branches see different pictures.
            text_embeds: `[G*N, T_t, D]` for G guidance branches (all rows of branch 0 first), `[G*N, F, T_t, D]`
                if each frame reads its own text, or the result of `prepare_text`.

        Returns:
            `[G*N, 4, F, h, w]`.

        Raises:
            LoopAnimateError: more frames than the model has positions.
        """
        clips, _, frames = sample.shape[:3]
        if frames > self.config.max_positions:
            raise LoopAnimateError(
                f"a window must have 1 to {self.config.max_positions} frames, got {frames}"
            )
        text = text_embeds if isinstance(text_embeds, Condition) else self._condition(text_embeds)
        image = self._condition(image_embeds)
        assert text.embeds is not None
        branches = text.embeds.shape[0] // clips
        timestep = timestep.expand(clips)
        if branches > 1 and not self._down_path_is_shared(image_embeds, clips):
            sample, timestep = sample.repeat(branches, 1, 1, 1, 1), timestep.repeat(branches)
            image = image if image_embeds.shape[0] > clips else image.repeat(branches)
            branches = 1
        sources = {"image": image, "text": text, "none": Condition(None)}
        down, middle, up = (sources[name] for name in self.config.routing)

        time = self.time_embedding(timestep, sample.dtype)
        x = sample.transpose(1, 2).flatten(0, 1)  # [N*F, 9, h, w]
        skips: list[Tensor] = []
        x = self._keep(self.conv_in(x), skips)
        for block in self.down_blocks:
            for i, resnet in enumerate(block.resnets):
                x = self._spatial(resnet, x, time, frames)
                if block.attentions:
                    x = self._spatial(block.attentions[i], x, down, frames)
                x = self._keep(self._temporal(block.motion_modules[i], x, frames), skips)
            if hasattr(block, "downsamplers"):
                x = self._keep(block.downsamplers[0](x), skips)

        x = self._spatial(self.mid_block.resnets[0], x, time, frames)
        # from here on each branch has its own rows
        x, time = x.repeat(branches, 1, 1, 1), time.repeat(branches, 1)
        if middle is image:
            middle = image.repeat(branches)
        if up is image:
            up = image.repeat(branches)
        x = self._spatial(self.mid_block.attentions[0], x, middle, frames)
        x = self._middle(self._spatial(self.mid_block.resnets[1], x, time, frames))

        for block in self.up_blocks:
            for i, resnet in enumerate(block.resnets):
                skip = skips.pop()
                if branches > 1 and self._skips_are_shared(resnet):
                    x = self._spatial(resnet, x, time, frames, skip)
                else:
                    skip = skip.repeat(branches, 1, 1, 1)
                    x = torch.cat(self._joined(x, skip, len(skips)), dim=1)
                    x = self._spatial(resnet, x, time, frames)
                if block.attentions:
                    x = self._spatial(block.attentions[i], x, up, frames)
                x = self._temporal(block.motion_modules[i], x, frames)
            if hasattr(block, "upsamplers"):
                x = block.upsamplers[0](x, size=skips[-1].shape[2:])

        x = self.conv_out(F.silu(self.conv_norm_out(x)))
        return split_frames(x, frames).transpose(1, 2)

    def prepare_text(self, text_embeds: Tensor) -> Condition:
        """Project `[G*N, T, D]` or `[G*N, F, T, D]` to the keys and values of every layer that reads text: once."""
        condition = self._condition(text_embeds)
        if not condition.one_token:
            for part, source in zip(
                (self.down_blocks, [self.mid_block], self.up_blocks),
                self.config.routing,
                strict=True,
            ):
                for attention in (
                    a for block in part for a in block.attentions if source == "text"
                ):
                    cross = attention.transformer_blocks[0].attn2
                    condition.keys_values[cross] = cross.keys_values(text_embeds)
        return condition

    def zero_motion(self) -> None:
        """Zero the last layer of every motion module: training starts from independent frames (AnimateDiff)."""
        for block in [*self.down_blocks, *self.up_blocks]:
            for motion in block.motion_modules:
                nn.init.zeros_(motion.proj_out.weight)
                nn.init.zeros_(motion.proj_out.bias)

    def _condition(self, embeds: Tensor) -> Condition:
        return Condition(
            embeds, one_token=self.speedups.one_token, fold_frames=self.speedups.fold_frames
        )

    def _down_path_is_shared(self, image_embeds: Tensor, clips: int) -> bool:
        return (
            self.speedups.shared_down
            and self.config.routing[0] != "text"
            and image_embeds.shape[0] == clips
        )

    def _skips_are_shared(self, resnet: ResnetBlock) -> bool:
        return self.speedups.shared_skips and resnet.can_share_skip

    # Another framework may change the feature maps here; its patches and ControlNets are written for such places.
    def _keep(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """Keep `x`, a result of the down path, for the up path; returns what the down path goes on with."""
        skips.append(x)
        return x

    def _middle(self, x: Tensor) -> Tensor:
        """The result of the middle block."""
        return x

    def _joined(self, x: Tensor, skip: Tensor, skips_left: int) -> tuple[Tensor, Tensor]:
        """What a layer of the up path reads: the result of the layer before it, and a result of the down path."""
        return x, skip

    def _spatial(
        self,
        layer: nn.Module,
        x: Tensor,
        condition: Tensor | Condition,
        frames: int,
        *skip: Tensor,
    ) -> Tensor:
        """Run a layer that treats each frame alone, `chunk_frames` at a time; `skip` is a resnet's further input."""
        chunk = self.chunk_frames
        if chunk is None or chunk >= frames:
            return self._run(layer, x, condition, frames, *skip)
        out = []
        for begin in range(0, frames, chunk):
            some = slice(begin, min(begin + chunk, frames))
            count = some.stop - begin
            maps = [split_frames(part, frames)[:, some].flatten(0, 1) for part in (x, *skip)]
            read = condition.at(some) if isinstance(condition, Condition) else condition
            done = self._run(layer, maps[0], read, count, *maps[1:])
            out.append(split_frames(done, count))
        return torch.cat(out, dim=1).flatten(0, 1)

    def _temporal(self, layer: nn.Module, x: Tensor, frames: int) -> Tensor:
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        return self._run(layer, x, frames, self.chunk_pixels, recompute)

    def _run(self, layer: Callable[..., Tensor], *args: Any) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *args, use_reentrant=False, preserve_rng_state=False)  # type: ignore[return-value]
        return layer(*args)
