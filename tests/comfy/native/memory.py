"""Speed, memory and interrupts."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import torch
from LoopAnimate.nodes.native.load import load_bundle
from LoopAnimate.nodes.native.unet import (
    comfys_attention,
    comfys_attention_is_better,
    use_attention,
)
from toy import FOLDER, FRAMES, SIDE, close_to, conditions, sample, toy


def rows_seen(model: Any, layer: str, call: Any) -> list[int]:
    """The batch sizes that a layer of the network sees during `call()`."""
    rows: list[int] = []
    module = model.model.diffusion_model.get_submodule(layer)
    hook = module.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    try:
        call()
    finally:
        hook.remove()
    return rows


def check_branches_share_the_down_path() -> None:
    model = toy().model
    last = "up_blocks.3.resnets.0"
    assert set(rows_seen(model, "conv_in", lambda: sample(model))) == {FRAMES}
    assert set(rows_seen(model, last, lambda: sample(model))) == {2 * FRAMES}
    positive, _ = conditions(model)
    positive[0][1]["loop_image_embeds"] = positive[0][1]["loop_image_embeds"] * 2
    other = rows_seen(model, "conv_in", lambda: sample(model, positive=positive))
    assert set(other) == {2 * FRAMES}  # the branches see different pictures
    speedups = model.model.diffusion_model.speedups
    shared = sample(model)
    speedups.shared_down = False
    try:
        close_to(sample(model), shared)
    finally:
        speedups.shared_down = True


def check_comfyuis_attention() -> None:
    """ComfyUI's attention, used if ComfyUI does not choose torch's, gives the same numbers."""
    assert not comfys_attention_is_better()  # on a CPU
    model = load_bundle(FOLDER / "toy.safetensors", "fp32").model
    use_attention(model.model.diffusion_model, comfys_attention)
    close_to(sample(model), sample(toy().model))


class ShortOfMemory:
    """Makes a layer run out of memory above a number of rows."""

    def __init__(self, model: Any, rows: int) -> None:
        self.unet, self.rows, self.failed = model.model.diffusion_model, rows, 0

    def __enter__(self) -> ShortOfMemory:
        layer = self.unet.get_submodule("up_blocks.3.resnets.0")
        self.hook = layer.register_forward_pre_hook(self.fail)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()
        self.unet._chunks.clear()

    def fail(self, _module: Any, inputs: Any) -> None:
        if len(inputs[0]) > self.rows:
            self.failed += 1
            raise comfy.model_management.OOM_EXCEPTION("CUDA out of memory. Tried to allocate")


def check_chunks_when_memory_is_short() -> None:
    expected = sample(toy().model)
    with ShortOfMemory(toy().model, rows=4) as short:
        found = sample(toy().model)
        assert short.failed == 2  # 5 frames, 3 frames; then 2 at a time for all steps
    close_to(found, expected)


def check_memory_that_is_too_short_is_a_sentence() -> None:
    with ShortOfMemory(toy().model, rows=0):
        try:
            sample(toy().model)
        except comfy.model_management.OOM_EXCEPTION as error:
            assert "not enough memory for 5 frames of 64 x 64 pixels" in str(error), error
        else:
            raise AssertionError("it ran without memory")


def check_partial_load() -> None:
    """Most weights stay in CPU memory and are cast when needed: the same loop."""
    expected = sample(toy().model)
    model = toy().model.clone()
    model.detach()
    device = comfy.model_management.get_torch_device()
    model.load(device, lowvram_model_memory=model.model_size() // 4)
    try:
        assert model.model.model_lowvram
        leaves = [
            m
            for m in model.model.diffusion_model.modules()
            if next(m.parameters(recurse=False), None) is not None
        ]
        assert all(hasattr(leaf, "comfy_cast_weights") for leaf in leaves)
        assert sum(leaf.comfy_cast_weights for leaf in leaves) > 0
        positive, _negative = conditions(model)
        x, t = torch.randn(FRAMES, 4, SIDE, SIDE), torch.full((FRAMES,), 5.0)
        loop = model.model.extra_conds(
            noise=x, device=device, cross_attn=positive[0][0], **positive[0][1]
        )
        inputs = {
            name: cond.process_cond(batch_size=FRAMES, device=device, area=None).cond
            for name, cond in loop.items()
        }
        partly = model.model.apply_model(x, t, **inputs)
    finally:
        model.detach()
    model.load(device, full_load=True)
    close_to(model.model.apply_model(x, t, **inputs), partly)
    close_to(sample(toy().model), expected)


def check_every_parameter_is_in_a_streamable_layer() -> None:
    network = toy().model.model.diffusion_model
    assert not list(network.buffers())
    streamed = {
        id(parameter)
        for module in network.modules()
        if hasattr(module, "comfy_cast_weights")
        for parameter in module.parameters(recurse=False)
    }
    assert streamed == {id(parameter) for parameter in network.parameters()}


def check_memory_estimate() -> None:
    model = toy().model.model
    one = model.memory_required([35, 4, 64, 64])
    assert model.memory_required([70, 4, 64, 64]) == 2 * one
    shapes = {"num_video_frames": [[1], [1]]}
    assert model.memory_required([800, 4, 64, 64], shapes) == model.memory_required([72, 4, 64, 64])


def check_interrupt_within_a_step() -> None:
    model, mm = toy().model, comfy.model_management
    calls: list[int] = []

    def interrupt(_module: Any, _inputs: Any) -> None:
        calls.append(1)
        mm.interrupt_current_processing()

    hook = model.model.diffusion_model.conv_in.register_forward_pre_hook(interrupt)
    try:
        sample(model)
    except mm.InterruptProcessingException:
        assert len(calls) == 1
    else:
        raise AssertionError("it was not interrupted")
    finally:
        hook.remove()
        mm.interrupt_current_processing(False)
