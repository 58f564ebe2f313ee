"""ControlNets, T2I-Adapters and patches, on a network with the proportions of Stable Diffusion's."""

from __future__ import annotations

from functools import cache
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import comfy.t2i_adapter.adapter
import torch
from LoopAnimate.nodes.native.closing import close_loops
from LoopAnimate.nodes.native.load import load_bundle
from torch import Tensor
from toy import FOLDER, close_to, conditions, sample, toy

from loopanimate_core.errors import LoopAnimateError

CHANNELS, BLOCKS = 32, 12


@cache
def wide() -> Any:
    """32, 64, 128, 128 channels and two layers in each block."""
    return load_bundle(FOLDER / "wide.safetensors", "fp32").model


@cache
def plain() -> Tensor:
    return sample(wide())


def control_net(channels: int = CHANNELS) -> comfy.controlnet.ControlNet:
    """A ControlNet with random weights; the layers that training starts at zero are random too."""
    torch.manual_seed(0)
    network = comfy.cldm.cldm.ControlNet(
        image_size=32,
        in_channels=4,
        hint_channels=3,
        model_channels=channels,
        num_res_blocks=[2, 2, 2, 2],
        channel_mult=(1, 2, 4, 4),
        num_heads=2,
        use_spatial_transformer=True,
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_middle=1,
        context_dim=16,
        operations=comfy.ops.manual_cast,
    )
    for name, weight in network.named_parameters():
        scale = 1.0 if "norm" in name and name.endswith("weight") else 0.1
        torch.nn.init.normal_(weight, std=scale)
    return comfy.controlnet.ControlNet(network.eval(), load_device=torch.device("cpu"))


def adapter() -> comfy.controlnet.T2IAdapter:
    torch.manual_seed(0)
    network = comfy.t2i_adapter.adapter.Adapter(
        cin=64, channels=[CHANNELS * m for m in (1, 2, 4, 4)], nums_rb=2, ksize=1, sk=True, xl=False
    )
    return comfy.controlnet.T2IAdapter(network, network.input_channels, 8, "nearest-exact")


def sample_with(control: Any, strength: float = 1.0, model: Any = None, hints: int = 1) -> Tensor:
    """A loop whose positive prompt has a control; `hints` pictures, one for all frames or one for each."""
    hint = torch.rand(hints, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    positive, _negative = conditions(model or wide())
    positive[0][1]["control"] = control.copy().set_cond_hint(hint, strength)
    return sample(model or wide(), positive=positive)


def check_controls_change_the_loop_and_it_stays_closed() -> None:
    for control in (control_net(), adapter()):
        found = sample_with(control)
        assert torch.isfinite(found).all() and torch.equal(found[0], found[-1])
        assert (found - plain()).abs().mean() > 1e-3
        close_to(sample_with(control, strength=0.0), plain())
        assert (sample_with(control, hints=5) - found).abs().mean() > 1e-4


def check_controls_under_every_closing() -> None:
    for closing in ("shift", "windows", "off"):
        found = sample_with(control_net(), model=close_loops(wide(), closing))
        assert torch.isfinite(found).all(), closing


def check_a_control_net_of_another_network_is_refused() -> None:
    for model, control in ((toy().model, control_net()), (toy().model, adapter())):
        try:
            sample_with(control, model=model)
        except LoopAnimateError as error:
            assert "this ControlNet is made for" in str(error)
        else:
            raise AssertionError("a ControlNet of another network was taken")


def check_patches_act_in_comfyuis_order() -> None:
    """Every block once per call, numbered as in Stable Diffusion, and doing nothing leaves the numbers."""
    seen: list[tuple[str, int]] = []

    def watch(*values: Any) -> Any:
        options = values[-1]
        seen.append(options["block"])
        return values[0] if len(values) == 2 else values[:-1]

    model = wide().clone()
    model.set_model_input_block_patch(watch)
    model.set_model_output_block_patch(watch)
    close_to(sample(model), plain())
    once = [("input", i) for i in range(BLOCKS)] + [("output", i) for i in range(BLOCKS)]
    assert seen[: 2 * BLOCKS] == once
    seen.clear()
    model = wide().clone()
    model.set_model_attn1_patch(watch)
    close_to(sample(model), plain())
    attended = [("input", i) for i in (1, 2, 4, 5, 7, 8)] + [("middle", 0)]
    attended += [("output", i) for i in range(3, BLOCKS)]
    assert seen[: len(attended)] == attended


def check_windows_of_another_extension_are_refused() -> None:
    """AnimateDiff-Evolved tells other extensions which frames its window has."""
    model = wide().clone()
    model.model_options["transformer_options"]["ad_params"] = {"sub_idxs": None}
    sample(model)
    model.model_options["transformer_options"]["ad_params"] = {"sub_idxs": [0, 1, 2]}
    try:
        sample(model)
    except LoopAnimateError as error:
        assert "AnimateDiff-Evolved's context options" in str(error)
    else:
        raise AssertionError("windows of another extension were taken")
