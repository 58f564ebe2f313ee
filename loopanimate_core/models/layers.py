"""The layers of LoopUNet: time embedding, resnet, attention, spatial and temporal transformer.

Shape legend: N clips, F frames, C channels, H × W pixels of the feature map, T tokens of a condition.
Feature maps are `[N*F, C, H, W]`, frames of one clip next to each other. Every layer is built from an
`ops` namespace (`torch.nn`, or another framework's version of it that casts and streams weights). Only
those leaf layers hold parameters, and nothing holds a buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

MAX_ATTENTION_ROWS = (
    65_535  # CUDA's limit for the grid axis on which attention kernels put the batch
)


def sinusoid(positions: Tensor, channels: int) -> Tensor:
    """Return `[P, channels]`: `sin` in even and `cos` in odd channels (Vaswani et al. 2017, Section 3.5).

    AnimateDiff's position table is this function at 0, 1, 2, …; it was never trained, so any length is exact.
    """
    rates = torch.exp(
        torch.arange(0, channels, 2, device=positions.device) * (-math.log(10_000.0) / channels)
    )
    angles = positions[:, None].float() * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def split_frames(x: Tensor, frames: int) -> Tensor:
    """`[N*F, ...] -> [N, F, ...]`."""
    return x.unflatten(0, (-1, frames))


def add(fresh: Tensor, x: Tensor) -> Tensor:
    """`fresh + x` of one shape, into the memory of `fresh` where autograd does not need it: the same numbers."""
    if torch.is_grad_enabled() or fresh.shape != x.shape or fresh.dtype != x.dtype:
        return fresh + x
    return fresh.add_(x)


def silu(fresh: Tensor) -> Tensor:
    """SiLU, into the memory of `fresh` where autograd does not need it."""
    return F.silu(fresh, inplace=not torch.is_grad_enabled())


def add_shared(fresh: Tensor, shared: Tensor) -> Tensor:
    """`fresh [G*R, …]` plus `shared [R, …]` in each of its G branches."""
    rows = fresh.unflatten(0, (-1, shared.shape[0]))
    return (rows + shared if torch.is_grad_enabled() else rows.add_(shared)).flatten(0, 1)


class TimeEmbedding(nn.Module):
    """Timestep `[N]` to embedding `[N, 4*C]`."""

    def __init__(self, channels: int, ops: Any, factory: dict[str, Any]) -> None:
        super().__init__()
        self.channels = channels
        self.linear_1 = ops.Linear(channels, 4 * channels, **factory)
        self.linear_2 = ops.Linear(4 * channels, 4 * channels, **factory)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        half = self.channels // 2
        rates = torch.exp(torch.arange(half, device=timestep.device) * (-math.log(10_000.0) / half))
        angles = timestep[:, None].float() * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
        return self.linear_2(F.silu(self.linear_1(waves)))


class ResnetBlock(nn.Module):
    """Two convolutions with the time embedding between them; frames are independent."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_channels: int,
        groups: int,
        eps: float,
        ops: Any,
        factory: dict[str, Any],
    ) -> None:
        super().__init__()
        self.norm1 = ops.GroupNorm(groups, in_channels, eps=eps, **factory)
        self.conv1 = ops.Conv2d(in_channels, out_channels, 3, padding=1, **factory)
        self.time_emb_proj = ops.Linear(time_channels, out_channels, **factory)
        self.norm2 = ops.GroupNorm(groups, out_channels, eps=eps, **factory)
        self.conv2 = ops.Conv2d(out_channels, out_channels, 3, padding=1, **factory)
        self.conv_shortcut = (
            None
            if in_channels == out_channels
            else ops.Conv2d(in_channels, out_channels, 1, **factory)
        )

    def forward(self, x: Tensor, time: Tensor, frames: int, skip: Tensor | None = None) -> Tensor:
        """`skip [N*F, …]`: further channels, the same in all guidance branches of `x [G*N*F, …]`."""
        if skip is None:
            h = self.conv1(silu(self.norm1(x)))
            residual = x if self.conv_shortcut is None else self.conv_shortcut(x)
        else:
            h, residual = self._joined_with(skip, x)
        shift = self.time_emb_proj(F.silu(time))  # once per clip, not per frame
        h = (split_frames(h, frames) + shift[:, None, :, None, None]).flatten(0, 1)
        h = self.conv2(silu(self.norm2(h)))
        return add(h, residual)

    @property
    def can_share_skip(self) -> bool:
        """Whether the weights are plain tensors, of which a part can be used alone, and channels change."""
        layers = (self.norm1, self.conv1, self.conv_shortcut)
        return all(type(layer) in (nn.GroupNorm, nn.Conv2d) for layer in layers)

    def _joined_with(self, skip: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `conv1` and `conv_shortcut` make of `[x, skip]`, with the work on `skip` done once for all branches.

        A convolution is a sum over its input channels, and a group norm treats each group alone. A group that
        begins in `x` and ends in `skip` is normalised in every branch.
        """
        group = self.norm1.num_channels // self.norm1.num_groups
        straddling = -x.shape[1] % group
        if straddling:
            repeats = (x.shape[0] // skip.shape[0], 1, 1, 1)
            x = torch.cat([x, skip[:, :straddling].repeat(repeats)], dim=1)
            skip = skip[:, straddling:]

        def normed(part: Tensor, first: int) -> Tensor:
            some = slice(first, first + part.shape[1])
            weight, bias = self.norm1.weight[some], self.norm1.bias[some]
            groups = part.shape[1] // group
            return silu(F.group_norm(part, groups, weight, bias, self.norm1.eps))

        def convolved(conv: Any, own: Tensor, shared: Tensor) -> Tensor:
            channels = own.shape[1]
            ours = F.conv2d(own, conv.weight[:, :channels], conv.bias, padding=conv.padding)
            theirs = F.conv2d(shared, conv.weight[:, channels:], padding=conv.padding)
            return add_shared(ours, theirs)

        h = convolved(self.conv1, normed(x, 0), normed(skip, x.shape[1]))
        return h, convolved(self.conv_shortcut, x, skip)


class Attention(nn.Module):
    """Multi-head attention over `[B, L, C]`; `condition_channels` makes it read another sequence.

    Attributes:
        scaled_dot_product: softmax(Q·Kᵀ/√d)·V of `[B, heads, L, d]`. Another framework may replace it on
            an instance.
    """

    scaled_dot_product: Callable[[Tensor, Tensor, Tensor], Tensor] = staticmethod(
        F.scaled_dot_product_attention
    )

    def __init__(
        self,
        channels: int,
        heads: int,
        ops: Any,
        factory: dict[str, Any],
        condition_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        source = condition_channels or channels
        self.to_q = ops.Linear(channels, channels, bias=False, **factory)
        self.to_k = ops.Linear(source, channels, bias=False, **factory)
        self.to_v = ops.Linear(source, channels, bias=False, **factory)
        self.to_out = nn.ModuleList([ops.Linear(channels, channels, **factory)])

    def keys_values(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Project `[B, …, T, D]` to keys and values `[B, …, heads, T, C/heads]` (Eq. 14, 15)."""
        return self._split(self.to_k(condition)), self._split(self.to_v(condition))

    def attend(self, x: Tensor, keys_values: tuple[Tensor, Tensor]) -> Tensor:
        """softmax(Q·Kᵀ/√d)·V for queries from `x [B, L, C]` (Eq. 12, 13)."""
        query = self._split(self.to_q(x))
        out = self.scaled_dot_product(query, *keys_values)
        return self.to_out[0](out.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, self.keys_values(x))

    def one_token(self, condition: Tensor) -> Tensor:
        """Attention to one token: softmax over one key is 1, so no query is needed. `[B, 1, C]`."""
        return self.to_out[0](self.to_v(condition))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class GEGLU(nn.Module):
    def __init__(self, channels: int, hidden: int, ops: Any, factory: dict[str, Any]) -> None:
        super().__init__()
        self.proj = ops.Linear(channels, 2 * hidden, **factory)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        gate = F.gelu(gate)
        return value * gate if torch.is_grad_enabled() else gate.mul_(value)


class FeedForward(nn.Module):
    def __init__(self, channels: int, ops: Any, factory: dict[str, Any]) -> None:
        super().__init__()
        # net.1 is a dropout in diffusers; it has no parameters and is not needed
        self.net = nn.ModuleDict(
            {
                "0": GEGLU(channels, 4 * channels, ops, factory),
                "2": ops.Linear(4 * channels, channels, **factory),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net["2"](self.net["0"](x))


class TransformerBlock(nn.Module):
    """Norms, two attentions and a feed-forward net. `condition_channels=None`: both are self-attention."""

    def __init__(
        self,
        channels: int,
        heads: int,
        ops: Any,
        factory: dict[str, Any],
        condition_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = ops.LayerNorm(channels, **factory)
        self.attn1 = Attention(channels, heads, ops, factory)
        self.norm2 = ops.LayerNorm(channels, **factory)
        self.attn2 = Attention(channels, heads, ops, factory, condition_channels)
        self.norm3 = ops.LayerNorm(channels, **factory)
        self.ff = FeedForward(channels, ops, factory)


class Condition:
    """What a part of the network reads by cross-attention: embeddings, or None.

    They are `[N, T, D]` for all frames of a clip, or `[N, F, T, D]` with those of each frame (prompt travel).
    `keys_values` may hold projections computed earlier, one entry per attention layer that reads them.
    """

    def __init__(
        self, embeds: Tensor | None, *, one_token: bool = True, fold_frames: bool = True
    ) -> None:
        self.embeds = embeds
        self.one_token = one_token and embeds is not None and embeds.shape[-2] == 1
        self.fold_frames = fold_frames
        self.keys_values: dict[Attention, tuple[Tensor, Tensor]] = {}

    @property
    def per_frame(self) -> bool:
        """Whether each frame reads its own embeddings."""
        return self.embeds is not None and self.embeds.ndim == 4

    def at(self, frames: Tensor | slice) -> Condition:
        """The condition of some frames of the clip, by index."""
        if not self.per_frame or self.embeds is None:
            return self
        some = Condition(
            self.embeds[:, frames], one_token=self.one_token, fold_frames=self.fold_frames
        )
        some.keys_values = {
            layer: (keys[:, frames], values[:, frames])
            for layer, (keys, values) in self.keys_values.items()
        }
        return some

    def repeat(self, branches: int) -> Condition:
        """The same condition for each of several guidance branches (branch-major rows)."""
        if branches == 1 or self.embeds is None:
            return self
        return Condition(
            self.embeds.repeat(branches, *(1 for _ in self.embeds.shape[1:])),
            one_token=self.one_token,
            fold_frames=self.fold_frames,
        )


class SpatialTransformer(nn.Module):
    """Self-attention within a frame, cross-attention to the part's condition (MITDF), feed-forward."""

    def __init__(
        self,
        channels: int,
        heads: int,
        groups: int,
        condition_channels: int,
        ops: Any,
        factory: dict[str, Any],
    ) -> None:
        super().__init__()
        self.norm = ops.GroupNorm(groups, channels, eps=1e-6, **factory)
        self.proj_in = ops.Conv2d(channels, channels, 1, **factory)
        self.transformer_blocks: Any = nn.ModuleList(
            [TransformerBlock(channels, heads, ops, factory, condition_channels)]
        )
        self.proj_out = ops.Conv2d(channels, channels, 1, **factory)

    def forward(self, x: Tensor, condition: Condition, frames: int) -> Tensor:
        height = x.shape[2]
        h = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)  # [N*F, H*W, C]
        for block in self.transformer_blocks:
            h = add(block.attn1(block.norm1(h)), h)
            h = h + self._cross_attention(block, h, condition, frames)
            h = add(block.ff(block.norm3(h)), h)
        h = h.transpose(1, 2).unflatten(2, (height, -1))
        return x + self.proj_out(h)  # in the layout of `x`

    @staticmethod
    def _cross_attention(
        block: Any, h: Tensor, condition: Condition, frames: int
    ) -> Tensor | float:
        embeds, attention = condition.embeds, block.attn2
        if embeds is None:
            return 0.0
        if condition.one_token:
            read = attention.one_token(embeds)
            return read.flatten(0, 1) if condition.per_frame else read.repeat_interleave(frames, 0)
        keys_values = condition.keys_values.get(attention) or attention.keys_values(embeds)
        query = block.norm2(h)
        if condition.per_frame:
            keys, values = keys_values
            return attention.attend(query, (keys.flatten(0, 1), values.flatten(0, 1)))
        if condition.fold_frames:  # the frames of a clip are more queries of one batch row
            query = query.unflatten(0, (-1, frames)).flatten(1, 2)
            return attention.attend(query, keys_values).unflatten(1, (frames, -1)).flatten(0, 1)
        repeated = tuple(part.repeat_interleave(frames, dim=0) for part in keys_values)
        return attention.attend(query, repeated)


class MotionModule(nn.Module):
    """TEMM: two self-attentions over the frames at every pixel, with positions, and a feed-forward net."""

    def __init__(
        self,
        channels: int,
        heads: int,
        groups: int,
        norm_scope: str,
        ops: Any,
        factory: dict[str, Any],
    ) -> None:
        super().__init__()
        self.norm_scope = norm_scope
        self.norm = ops.GroupNorm(groups, channels, eps=1e-6, **factory)
        self.proj_in = ops.Linear(channels, channels, **factory)
        self.transformer_blocks: Any = nn.ModuleList(
            [TransformerBlock(channels, heads, ops, factory)]
        )
        self.proj_out = ops.Linear(channels, channels, **factory)

    def forward(
        self, x: Tensor, frames: int, chunk_pixels: int | None = None, recompute: bool = False
    ) -> Tensor:
        """`recompute`: recompute the activations in backward, one chunk at a time."""
        height, width = x.shape[2:]
        h = self._norm(x, frames)
        h = split_frames(h, frames).flatten(3).permute(0, 3, 1, 2).flatten(0, 1)  # [N*H*W, F, C]
        rows = min(chunk_pixels or MAX_ATTENTION_ROWS, MAX_ATTENTION_ROWS)
        over_time = self._recomputed_over_time if recompute else self._over_time
        h = (
            torch.cat([over_time(part) for part in h.split(rows)])
            if len(h) > rows
            else self._over_time(h)
        )
        h = h.unflatten(0, (-1, height * width)).permute(0, 2, 3, 1)  # [N, F, C, H*W]
        # added as it lies, which saves a copy; the sum has the layout of `x`
        return (split_frames(x, frames).flatten(3) + h).flatten(0, 1).unflatten(2, (height, width))

    def _norm(self, x: Tensor, frames: int) -> Tensor:
        if self.norm_scope == "per_frame":
            return self.norm(x)
        return self.norm(split_frames(x, frames).transpose(1, 2)).transpose(1, 2).flatten(0, 1)

    def _recomputed_over_time(self, h: Tensor) -> Tensor:
        return checkpoint(self._over_time, h, use_reentrant=False, preserve_rng_state=False)  # type: ignore[return-value]

    def _over_time(self, h: Tensor) -> Tensor:
        positions = sinusoid(torch.arange(h.shape[1], device=h.device), h.shape[2]).to(h.dtype)
        h = self.proj_in(h)
        for block in self.transformer_blocks:
            h = add(block.attn1(block.norm1(h) + positions), h)
            h = add(block.attn2(block.norm2(h) + positions), h)
            h = add(block.ff(block.norm3(h)), h)
        return self.proj_out(h)


class Resample(nn.Module):
    """Half (`stride=2`) or double the size; doubling goes to the exact size of the skip it will meet."""

    def __init__(self, channels: int, stride: int, ops: Any, factory: dict[str, Any]) -> None:
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, stride=stride, padding=1, **factory)

    def forward(self, x: Tensor, size: torch.Size | None = None) -> Tensor:
        if size is not None:
            x = F.interpolate(x, size=size, mode="nearest")
        return self.conv(x)
