"""MODEL: LoopUNet in a ModelPatcher, so that ComfyUI's samplers, LoRA loaders and memory management work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import comfy.utils
import torch
from torch import Tensor

from loopanimate_core.bundle import BundleConfig
from loopanimate_core.bundle.components import require_same_tensors
from loopanimate_core.conditions import DEFAULT_MOTION, shown_frames, static_condition
from loopanimate_core.encoders.vae import pixels_per_latent
from loopanimate_core.errors import LoopAnimateError

from .batch import FRAMES_KEY, loops_in
from .closing import close_loops
from .patches import prediction_of, refuse_prompt
from .still import still_and_mask
from .travel import CondTravel, texts_of
from .unet import ComfyLoopUNet

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BETA_SCHEDULES = {"scaled_linear": "linear", "linear": "sqrt_linear"}  # ComfyUI's names are swapped
LIVE_TENSORS = 32  # feature maps of the first level that are in memory at the peak


class CondPerClip(comfy.conds.CONDRegular):
    """One row per clip, whatever its number of frames."""

    def process_cond(self, batch_size: int, **kwargs: Any) -> CondPerClip:
        return self._copy_with(self.cond)


class CondText(comfy.conds.CONDCrossAttn):
    """Text `[1, T, D]`; ComfyUI pads prompts of different lengths to a common one."""

    def process_cond(self, batch_size: int, **kwargs: Any) -> CondText:
        return self._copy_with(self.cond)


class CondMap(CondPerClip):
    """A map `[1, C, h, w]`, cropped if the prompt is for an area only."""

    def process_cond(self, batch_size: int, area: Sequence[int] = (), **kwargs: Any) -> CondMap:
        cropped = self.cond
        axes = len(area) // 2 if area else 0  # area: sizes, then offsets
        for axis in range(axes):
            cropped = cropped.narrow(axis + 2, area[axis + axes], area[axis])
        return self._copy_with(cropped)


class LoopLatentFormat(comfy.latent_formats.LatentFormat):
    """Latents of a bundle's autoencoder: their scale, and the colours they approximate.

    Attributes:
        tiny_decoder: None, or a decoder that is fast enough for previews: unscaled latents `[N, 4, h, w]` to
            pictures `[N, 3, H, W]` in -1..1.
    """

    def __init__(
        self,
        scale_factor: float,
        rgb_factors: Sequence[Sequence[float]],
        bias: Sequence[float],
        tiny_decoder: torch.nn.Module | None = None,
    ) -> None:
        self.scale_factor = scale_factor
        self.tiny_decoder = tiny_decoder
        self.latent_rgb_factors = rgb_factors
        self.latent_rgb_factors_bias = bias


class LoopModelConfig(comfy.supported_models_base.BASE):
    """The configuration that ComfyUI's BaseModel needs."""

    unet_extra_config: ClassVar[dict[str, Any]] = {}
    memory_usage_factor = 1.0

    def __init__(self, config: BundleConfig, latent_format: LoopLatentFormat) -> None:
        self.latent_format = lambda: latent_format  # the base class calls it
        network = {
            "loop_config": config.unet,
            "schedule": config.schedule,
            "pixels_per_latent": pixels_per_latent(config.vae),
            "model_channels": config.unet.block_out_channels[0],
        }
        super().__init__(network)
        self.bundle_config = config
        self.sampling_settings = {
            "beta_schedule": BETA_SCHEDULES[config.schedule.beta_schedule],
            "linear_start": config.schedule.beta_start,
            "linear_end": config.schedule.beta_end,
            "timesteps": config.schedule.num_train_timesteps,
        }

    def inpaint_model(self) -> bool:
        return False

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> LoopModel:
        return LoopModel(self, device)


class LoopModel(comfy.model_base.BaseModel):
    """LoopUNet with its schedule and its conditions.

    Attributes:
        bundle_config: the configuration stored in the bundle.
        predicts: what the network predicts, as `patches.prediction_of` says it.
        few_steps: the bundle's few-step weights as they are stored; see `few_steps.py`.
    """

    def __init__(self, model_config: LoopModelConfig, device: Any = None) -> None:
        config = model_config.bundle_config
        kinds = comfy.model_base.ModelType
        kind = (
            kinds.V_PREDICTION if config.schedule.prediction_type == "v_prediction" else kinds.EPS
        )
        super().__init__(model_config, kind, device=device, unet_model=ComfyLoopUNet)
        self.bundle_config = config
        self.predicts = prediction_of(
            self.model_sampling
        )  # which nodes may replace while they sample
        self.few_steps: Mapping[str, Tensor] = {}

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """The conditions of one prompt, from what Build Loop Conditions put into it."""
        noise, device = kwargs["noise"], kwargs["device"]
        if "loop_still" not in kwargs:
            raise LoopAnimateError(
                "a prompt has no picture to animate: both prompts, positive and negative, must go through"
                " Build Loop Conditions"
            )
        unet = self.bundle_config.unet
        refuse_prompt(kwargs, unet.block_out_channels[0])
        size = noise.shape[-2:]
        frames = loops_in(noise.shape[0], kwargs.get(FRAMES_KEY)).frames
        still, mask = still_and_mask(kwargs, size, self.diffusion_model.pixels_per_latent)
        still, mask = self.process_latent_in(still.to(device)), mask.to(device)
        motion = kwargs.get("loop_motion", DEFAULT_MOTION)
        beside = static_condition(self.bundle_config.conditioning, still, mask, frames, motion)
        per_frame = beside[0].transpose(0, 1)  # [F, 5, h, w]
        text = kwargs["cross_attn"].to(device)
        travel = texts_of(kwargs, frames)
        travel = None if travel is None else travel.to(device)
        return {
            "c_crossattn": CondText(text),
            "loop_travel": CondTravel(travel),
            # one row per frame
            "crossattn_controlnet": comfy.conds.CONDCrossAttn(text if travel is None else travel),
            "image_embeds": CondPerClip(kwargs["loop_image_embeds"].to(device)),
            "loop_still": CondMap(still),
            "loop_concat": comfy.conds.CONDNoiseShape(per_frame),
            "loop_shown": comfy.conds.CONDRegular(shown_frames(frames).to(device)),
            "num_video_frames": comfy.conds.CONDConstant(frames),
        }

    def memory_required(
        self, input_shape: Sequence[int], cond_shapes: Mapping[str, Any] | None = None
    ) -> float:
        """Bytes that a call needs; the network sees at most as many frames of a clip as it has positions."""
        branches = len((cond_shapes or {}).get("num_video_frames", ())) or 2
        unet = self.bundle_config.unet
        rows = min(input_shape[0], branches * unet.max_positions)
        size_bytes = comfy.model_management.dtype_size(self.manual_cast_dtype or self.get_dtype())
        pixels = math.prod(input_shape[2:])
        return rows * pixels * unet.block_out_channels[0] * size_bytes * LIVE_TENSORS


def build_model(
    config: BundleConfig,
    state: Mapping[str, Tensor],
    latent_format: LoopLatentFormat,
    dtype: str = "auto",
) -> comfy.model_patcher.ModelPatcher:
    """Build a MODEL.

    Args:
        state: LoopUNet's tensors.
        dtype: "fp32", "fp16", "bf16", or "auto" for ComfyUI's choice for the device.

    Raises:
        LoopAnimateError: an unknown dtype, or tensors that are not LoopUNet's.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise LoopAnimateError(f"dtype must be one of auto, {', '.join(DTYPES)}, got {dtype!r}")
    management = comfy.model_management
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    model_config = LoopModelConfig(config, latent_format)
    supported = list(model_config.supported_inference_dtypes)
    stored = DTYPES.get(dtype) or management.unet_dtype(
        model_params=sum(tensor.numel() for tensor in state.values()),
        supported_dtypes=supported,
        weight_dtype=comfy.utils.weight_dtype(state),
    )
    cast = management.unet_manual_cast(stored, load_device, supported)
    model_config.set_inference_dtype(stored, cast)
    model = model_config.get_model(state, device=offload_device).eval()
    own = {name: tuple(t.shape) for name, t in model.diffusion_model.state_dict().items()}
    require_same_tensors("the network", own, {name: tuple(t.shape) for name, t in state.items()})
    model.diffusion_model.load_state_dict(dict(state))
    patcher = comfy.model_patcher.ModelPatcher(
        model, load_device=load_device, offload_device=offload_device
    )
    return close_loops(patcher, "tie")


def loop_model_of(model: comfy.model_patcher.ModelPatcher) -> LoopModel:
    """The LoopModel of a MODEL.

    Raises:
        LoopAnimateError: it is not a LoopAnimate model.
    """
    if not isinstance(model.model, LoopModel):
        raise LoopAnimateError(
            "the model is not a LoopAnimate model; connect the model of Load LoopAnimate"
        )
    return model.model
