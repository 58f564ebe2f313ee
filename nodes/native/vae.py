"""VAE: both kinds of autoencoder that a bundle can hold, as a ComfyUI VAE."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.taesd.taesd
import torch
from torch import Tensor, nn

from loopanimate_core.bundle.components import require_same_tensors
from loopanimate_core.convert import layouts
from loopanimate_core.encoders.tiny_vae import TinyVAE
from loopanimate_core.encoders.vae import pixels_per_latent
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import fit_picture, load_picture

from .model import LoopLatentFormat

KL_GROUPS = 32  # of every group norm in ComfyUI's AutoencoderKL


def build_vae(settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> comfy.sd.VAE:
    """Build a VAE.

    Args:
        settings: a bundle's `vae` entry.
        state: its tensors, under diffusers' names or those of single files.

    Raises:
        LoopAnimateError: ComfyUI's autoencoder does not support the settings, or the tensors do not fit.
    """
    if settings["_class_name"] == "AutoencoderTiny":
        return _tiny(settings, state)
    return _kl(settings, state)


def latent_format_of(vae: comfy.sd.VAE, settings: Mapping[str, Any]) -> LoopLatentFormat:
    """The scale between VAE and MODEL, and how latents are previewed.

    The colours of Stable Diffusion's latents are known. Those of a tiny VAE are fitted to the bundled
    pictures, for ComfyUI's own preview; LoopAnimate's preview uses a copy of its decoder.
    """
    scale = float(settings["scaling_factor"])
    if settings["_class_name"] == "AutoencoderKL":
        factors = comfy.latent_formats.SD15().latent_rgb_factors
        return LoopLatentFormat(scale, factors, [0.0] * 3)
    folder = Path(str(resources.files("loopanimate_core"))) / "data" / "pictures"
    side = 16 * pixels_per_latent(settings)
    pictures = torch.stack(
        [fit_picture(load_picture(path), side, side) for path in sorted(folder.glob("*.png"))]
    )
    factors, bias = fit_colours(vae.encode(pictures) * scale, pictures)
    return LoopLatentFormat(scale, factors, bias, copy.deepcopy(vae.first_stage_model.decoder))


def fit_colours(latents: Tensor, pictures: Tensor) -> tuple[list[list[float]], list[float]]:
    """The linear map from latents `[N, 4, h, w]` to colours of `[N, H, W, 3]`: 4 x 3 factors, 3 biases."""
    small = nn.functional.adaptive_avg_pool2d(
        pictures.movedim(-1, 1).float(), (latents.shape[-2], latents.shape[-1])
    )
    known = latents.float().movedim(1, -1).flatten(0, 2)
    known = torch.cat([known, torch.ones_like(known[:, :1])], dim=1)
    wanted = small.movedim(1, -1).flatten(0, 2) * 2 - 1
    ridge = 1e-3 * len(known) * torch.eye(known.shape[1])
    solution = torch.linalg.solve(known.T @ known + ridge, known.T @ wanted)
    return solution[:-1].tolist(), solution[-1].tolist()


def _kl(settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> comfy.sd.VAE:
    channels = settings["block_out_channels"]
    base, levels = channels[0], len(channels)
    if settings["norm_num_groups"] != KL_GROUPS or any(width % base for width in channels):
        raise LoopAnimateError(
            f"ComfyUI's VAE needs norm_num_groups {KL_GROUPS} and channels that are multiples of the first, got"
            f" {settings['norm_num_groups']} and {list(channels)}"
        )
    sizes = {
        "double_z": True,
        "z_channels": settings["latent_channels"],
        "resolution": 256,
        "in_channels": settings["in_channels"],
        "out_ch": settings["out_channels"],
        "ch": base,
        "ch_mult": [width // base for width in channels],
        "num_res_blocks": settings["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    theirs = {}
    for name, tensor in state.items():
        if "encoder.down.0.block.0.conv1.weight" not in state:
            name = layouts.ldm_vae_name(name, levels)
        matrix = ".mid.attn_1." in name and tensor.ndim == 2
        theirs[name] = tensor[..., None, None] if matrix else tensor
    params = {"ddconfig": sizes, "embed_dim": settings["latent_channels"]}
    vae = comfy.sd.VAE(sd=dict(theirs), config={"params": params})
    vae.downscale_ratio = vae.upscale_ratio = pixels_per_latent(settings)
    _require_complete(vae.first_stage_model, theirs)
    return vae


def _tiny(settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> comfy.sd.VAE:
    # ComfyUI's TAESD has a fixed number of blocks, so its network is replaced.
    vae = comfy.sd.VAE(sd=comfy.taesd.taesd.TAESD().state_dict())
    network = TinyVAE(settings, comfy.ops.disable_weight_init)
    _require_complete(network, state)
    network.load_state_dict(dict(state))
    network = network.eval().requires_grad_(False).to(vae.vae_dtype)
    width = max(*settings["encoder_block_out_channels"], *settings["decoder_block_out_channels"])
    vae.first_stage_model = network
    vae.downscale_ratio = vae.upscale_ratio = pixels_per_latent(settings)
    vae.latent_channels = settings["latent_channels"]

    def memory_used(pixels: int, dtype: torch.dtype) -> int:
        return 6 * width * pixels * comfy.model_management.dtype_size(dtype)

    vae.memory_used_encode = lambda shape, dtype: memory_used(shape[2] * shape[3], dtype)
    vae.memory_used_decode = lambda shape, dtype: memory_used(
        shape[2] * shape[3] * vae.upscale_ratio**2, dtype
    )
    vae.patcher = comfy.model_patcher.ModelPatcher(
        network, load_device=vae.device, offload_device=comfy.model_management.vae_offload_device()
    )
    return vae


def _require_complete(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """ComfyUI itself would load the tensors that fit and leave the others uninitialised."""
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    require_same_tensors("the VAE", own, {name: tuple(t.shape) for name, t in state.items()})
