"""LoopUNet as ComfyUI calls a network: frames in the batch, guidance branches one after another."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
import comfy.patcher_extension
import torch
from torch import Tensor

from loopanimate_core.models import LoopUNet, LoopUNetConfig
from loopanimate_core.models.layers import SpatialTransformer
from loopanimate_core.preconditioning import Preconditioning
from loopanimate_core.schedule import ScheduleConfig

from .patches import ActivePatches, Running, make_patchable
from .travel import read_by_frames

log = logging.getLogger("loopanimate")


class ComfyLoopUNet(LoopUNet):
    """LoopUNet under ComfyUI's calling convention, with the same parameter names.

    B branches of F frames arrive as `[B*F, 4, h, w]`. Branches that differ only in their text share the down
    path. This is decided from the data, so it works for any number and order of branches.
    """

    def __init__(
        self,
        loop_config: LoopUNetConfig,
        schedule: ScheduleConfig,
        pixels_per_latent: int,
        model_channels: int,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        assert (
            model_channels == loop_config.block_out_channels[0]
        )  # ComfyUI's name, for nodes like FreeU
        super().__init__(loop_config, dtype=dtype, device=device, ops=operations)
        self.running = Running()
        self.layers_up = sum(len(block.resnets) for block in self.up_blocks)
        make_patchable(self, self.running)
        self.dtype = dtype
        self.preconditioning = Preconditioning(schedule)
        self.pixels_per_latent = pixels_per_latent
        self._chunks: dict[tuple[int, ...], tuple[int, int]] = {}
        if comfys_attention_is_better():
            use_attention(self, comfys_attention)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **conds: Any,
    ) -> Tensor:
        """Predict noise (or velocity) of `x [B*F, 4, h, w]` at `timesteps [B*F]`; `context` is `[B, T, D]`."""
        options = transformer_options or {}
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(
            self.predict, self, wrappers
        )
        return executor.execute(x, timesteps, context, control, options, **conds)

    def predict(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: dict[str, Any] | None,
        transformer_options: dict[str, Any],
        *,
        num_video_frames: int,
        loop_still: Tensor,
        loop_concat: Tensor,
        loop_shown: Tensor,
        image_embeds: Tensor,
        loop_travel: list[Tensor | None] | None = None,
        loop_window: Tensor | None = None,
        **_others: Any,
    ) -> Tensor:
        """Predict the noise (or velocity), as in `forward`.

        Args:
            loop_still: the still, `[B, 4, h, w]`.
            loop_concat: [Z_SD, Z_M], `[B*F, 5, h, w]`.
            loop_shown: 1 for frames that Z_SD shows, `[B*F]`.
            image_embeds: `[B, T_i, D]`.
            loop_travel: of each branch None, or the text of each frame that plays, `[P, T, D]`.
            loop_window: the indices `[F]` of these frames in the loop; None for 0 … F-1.
        """
        rows = (-1, num_video_frames)
        z_t = x.unflatten(0, rows).transpose(1, 2)  # [B, 4, F, h, w]
        z_c = torch.cat([z_t, loop_concat.unflatten(0, rows).transpose(1, 2)], dim=1)  # Eq. 11
        timestep = timesteps.unflatten(0, rows)[:, 0]
        patches = ActivePatches(transformer_options, control, x.shape)
        parts = (z_c, timestep, image_embeds)
        if not patches.before_the_prompt and all(map(same_in_all_rows, parts)):
            z_c, timestep, image_embeds = (part[:1] for part in parts)
        if loop_window is None:
            loop_window = torch.arange(num_video_frames, device=x.device)
        text = read_by_frames(context, loop_travel, loop_window)
        output = self._within_memory(z_c, timestep, image_embeds, text, patches)
        predicted = self.preconditioning.prediction(
            output,
            z_t,
            loop_still,
            self.preconditioning.alpha_bar(timestep),
            loop_shown[:num_video_frames].bool(),
        )
        return predicted.transpose(1, 2).flatten(0, 1)

    # -------------------------------------------------------------------------------- memory, interrupts
    def _within_memory(
        self, z_c: Tensor, timestep: Tensor, image: Tensor, text: Tensor, patches: ActivePatches
    ) -> Tensor:
        """The network's output, computed in smaller and smaller chunks if memory is short."""
        frames, height, width = z_c.shape[2:]
        key = (len(text), frames, height, width)
        while True:
            self.chunk_frames, self.chunk_pixels = self._chunks.get(key, (None, None))
            self.running.active = patches.copy() if patches.any else None
            try:
                return super().forward(z_c, timestep, image, text)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            finally:
                self.running.active = None
            # Not inside the except block: the exception keeps every tensor of the failed call alive.
            comfy.model_management.soft_empty_cache()
            chunk_frames, chunk_pixels = self.chunk_frames, self.chunk_pixels
            if chunk_frames == 1:
                side_px = self.pixels_per_latent
                raise comfy.model_management.OOM_EXCEPTION(
                    f"There is not enough memory for {frames} frames of {side_px * width} x {side_px * height}"
                    " pixels, even one frame at a time; choose a smaller size or fewer frames."
                )
            halves = (
                math.ceil((chunk_frames or frames) / 2),
                math.ceil((chunk_pixels or len(text) * height * width) / 2),
            )
            log.warning(
                "LoopAnimate: out of memory, trying again with %d frames at a time", halves[0]
            )
            self._chunks[key] = halves

    def _run(self, layer: Callable[..., Tensor], *args: Any) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return super()._run(layer, *args)

    # ---------------------------------------------------------------------------- patches, ControlNets
    def _keep(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        if (active := self.running.active) is None:
            return super()._keep(x, skips)
        kept, x = active.down(x, len(skips))
        skips.append(kept)
        return x

    def _middle(self, x: Tensor) -> Tensor:
        return x if self.running.active is None else self.running.active.middle(x)

    def _joined(self, x: Tensor, skip: Tensor, skips_left: int) -> tuple[Tensor, Tensor]:
        if self.running.active is None:
            return x, skip
        return self.running.active.up(x, skip, self.layers_up - 1 - skips_left)


def same_in_all_rows(batch: Tensor) -> bool:
    """Whether the rows of a batch are bit-equal."""
    return torch.equal(batch, batch[:1].expand_as(batch))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory; on CPUs and Apple GPUs only the message says so."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        phrase in str(error) for phrase in ("out of memory", "not enough memory", "alloc_cpu")
    )


def comfys_attention_is_better() -> bool:
    """Whether ComfyUI does not use torch's attention, because of the GPU or because the user chose another."""
    management = comfy.model_management
    on_cpu = management.is_device_cpu(management.get_torch_device())
    return not (on_cpu or management.pytorch_attention_enabled())


def comfys_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """ComfyUI's choice of attention, `[B, heads, L, d]`."""
    heads = query.shape[1]
    out = comfy.ldm.modules.attention.optimized_attention(
        query, key, value, heads, skip_reshape=True
    )
    return out.unflatten(-1, (heads, -1)).transpose(1, 2)


def use_attention(unet: LoopUNet, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Replace the implementation of spatial attention; temporal sequences are short enough for torch's."""
    for module in unet.modules():
        if isinstance(module, SpatialTransformer):
            for block in module.transformer_blocks:
                block.attn1.scaled_dot_product = block.attn2.scaled_dot_product = function
