"""Motion modules in every layout, and networks without any."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close
from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel
from networks import Parts, State, assert_equal, assert_same_model, load, save

from loopanimate_core.convert import layouts, sources
from loopanimate_core.convert.assemble import PartFiles, assemble, widen_conv_in
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.schedule import ScheduleConfig

pytestmark = pytest.mark.numeric


# ---------------------------------------------------------------------------------- motion modules
def original(adapter: Any, positions: int = 32) -> State:
    """A motion module file in AnimateDiff's layout, written out independently of the converter."""
    state = {}
    for name, tensor in adapter.state_dict().items():
        module, _, rest = name.partition(".motion_modules.")
        index, _, rest = rest.partition(".")
        stem = f"{module}.motion_modules.{index}.temporal_transformer."
        if rest.endswith("pos_embed.pe"):
            for block in (0, 1):
                key = f"{stem}transformer_blocks.0.attention_blocks.{block}.pos_encoder.pe"
                state[key] = tensor[:, :positions].clone()
            continue
        for old, new in (
            (".attn1.", ".attention_blocks.0."),
            (".attn2.", ".attention_blocks.1."),
            (".norm1.", ".norms.0."),
            (".norm2.", ".norms.1."),
            (".norm3.", ".ff_norm."),
        ):
            rest = rest.replace(old, new)
        state[stem + rest] = tensor
    return state


@pytest.fixture
def modules(parts: Parts) -> State:
    return original(parts.adapter)


def expected_motion(parts: Parts) -> State:
    return {k: v for k, v in parts.adapter.state_dict().items() if not k.endswith(".pe")}


@pytest.mark.parametrize("positions", [24, 32])
def test_v1_and_v3(parts, tmp_path, positions) -> None:
    path = save(original(parts.adapter, positions), tmp_path / "mm.safetensors")
    motion = sources.read_motion(path)
    assert_equal(motion.state, expected_motion(parts))
    assert motion.conv_in is None


def test_v2_loses_its_middle_block_with_a_warning(parts, tmp_path) -> None:
    path = save(original(parts.adapter_v2), tmp_path / "mm.safetensors")
    with pytest.warns(UserWarning, match="middle block"):
        state = sources.read_motion(path).state
    theirs = {k: v for k, v in parts.adapter_v2.state_dict().items() if k[:3] != "mid"}
    assert_equal(state, {k: v for k, v in theirs.items() if not k.endswith(".pe")})


def test_half_precision_tables_are_the_sinusoid(parts, tmp_path) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        state = {k: v.to(dtype) for k, v in original(parts.adapter).items()}
        assert sources.read_motion(save(state, tmp_path / "mm.safetensors")).state


def test_trainers_wrappers(parts, modules, tmp_path) -> None:
    """.ckpt with `state_dict`, DDP's `module.`, an epoch, and the frozen UNet beside the motion modules."""
    frozen = {k: v for k, v in parts.unet.state_dict().items() if k.startswith(("conv", "mid"))}
    state = {f"module.{k}": v for k, v in {**modules, **frozen}.items()}
    path = tmp_path / "mm.ckpt"
    torch.save({"epoch": 1, "global_step": 2, "state_dict": state, "animatediff_config": "x"}, path)
    assert_equal(sources.read_motion(path).state, expected_motion(parts))


def test_original_layout_holds_against_diffusers_converter(parts, adapter, extracted) -> None:
    path = str(extracted["animatediff"] / "motion_module.safetensors")
    theirs: Any = MotionAdapter.from_single_file(path, config=str(adapter), local_files_only=True)
    assert_equal(
        {k: v for k, v in theirs.state_dict().items() if not k.endswith(".pe")},
        expected_motion(parts),
    )


def test_original_layout_has_the_tables(parts, modules, extracted) -> None:
    state = load(extracted["animatediff"] / "motion_module.safetensors")
    assert {k: v.shape for k, v in state.items() if "pos_encoder" not in k} == {
        k: v.shape for k, v in modules.items() if "pos_encoder" not in k
    }
    tables = {k for k in modules if "pos_encoder" in k}
    assert tables == {k for k in state if "pos_encoder" in k} and len(tables) == 40
    for name in tables:
        assert state[name].shape[1] == 36
        torch.testing.assert_close(state[name][:, :32], modules[name])
    full = sum("motion_modules" in name for name in state)
    assert full == 560  # as published for v1 and v3


def test_pia_brings_conv_in_in_another_order(parts, bundle, extracted) -> None:
    pia = load(extracted["pia"] / "pia.safetensors")
    ours = bundle.unet.conv_in.weight
    assert torch.equal(pia["conv_in.weight"][:, 4], ours[:, 8])  # the mask
    assert torch.equal(pia["conv_in.weight"][:, 5:], ours[:, 4:8])
    for path in (extracted["pia"] / "pia.safetensors", extracted["motion_adapter"]):
        motion = sources.read_motion(path)
        assert motion.conv_in is not None and torch.equal(motion.conv_in, ours)
        assert_equal(motion.state, expected_motion(parts))


def test_a_whole_motion_unet_is_a_source_of_both(
    parts, bundle, folder, text_folder, tmp_path
) -> None:
    whole: Any = UNetMotionModel.from_unet2d(parts.unet, parts.adapter)
    whole.save_pretrained(tmp_path / "unet")
    config = json.loads((tmp_path / "unet" / "config.json").read_text())
    assert config["motion_num_attention_heads"] == 8
    back = assemble(PartFiles(tmp_path / "unet", tmp_path / "unet", folder, text_folder, folder))
    assert_same_model(back, bundle, but=("conv_in.weight",))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda s: {f"lora_unet_{k}.lora_down.weight": v for k, v in s.items()}, "is a LoRA"),
        (
            lambda s: {
                k.replace(".to_q.weight", ".processor.to_q_lora.down.weight"): v
                for k, v in s.items()
            },
            "is a LoRA",
        ),
        (lambda s: {**s, "controlnet_cond_embedding.conv_in.weight": torch.ones(1)}, "SparseCtrl"),
        (
            lambda s: {k.replace("motion_modules", "temporal_attentions"): v for k, v in s.items()},
            "HotshotXL",
        ),
        (lambda s: {k: v for k, v in s.items() if "_blocks.3." not in k}, "Stable Diffusion XL"),
        (lambda s: {k: v for k, v in s.items() if "pos_encoder" not in k}, "AnimateLCM"),
        (lambda s: {**s, "img_encoder.x": torch.ones(1)}, "AnimateLCM"),
        (lambda s: {**s, "fps_embedding.linear.weight": torch.ones(1)}, "FancyVideo"),
        (
            lambda s: {"strange.weight": torch.ones(1)},
            r"unknown layout; its first tensor is 'strange",
        ),
        (lambda s: {**s, "strange.weight": torch.ones(1)}, "unknown tensor 'strange.weight'"),
        (
            lambda s: {k: 1.5 * v if "pos_enc" in k else v for k, v in s.items()},
            "differs from AnimateDiff's sinusoid",
        ),
    ],
)
def test_motion_files_that_are_rejected(modules, tmp_path, changed, message) -> None:
    path = save(changed(modules), tmp_path / "mm.safetensors")
    with pytest.raises(LoopAnimateError, match=message) as caught:
        sources.read_motion(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            lambda s: {
                **s,
                "up_blocks.0.motion_modules.9.temporal_transformer.norm.bias": torch.ones(1),
            },
            "unknown tensor 'up_blocks.0.motion_modules.9.norm.bias'",
        ),
        (
            lambda s: {
                k: v[:1] if k.endswith("transformer.norm.bias") else v for k, v in s.items()
            },
            "must have shape",
        ),
        (lambda s: {k: v for k, v in s.items() if "ff_norm.bias" not in k}, "has no tensor"),
    ],
)
def test_motion_modules_that_do_not_fit(
    modules, folder, text_folder, tmp_path, changed, message
) -> None:
    path = save(changed(modules), tmp_path / "mm.safetensors")
    with pytest.raises(LoopAnimateError, match=message):
        assemble(PartFiles(folder, path, text_encoder=text_folder))


# --------------------------------------------------------------------------- conv_in and untrained
def test_conv_in_from_four_to_nine() -> None:
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    zero = widen_conv_in(weight, None, "zero", generator)
    assert torch.equal(zero[:, :4], weight) and not zero[:, 4:].any()
    random = widen_conv_in(weight, None, "random", generator)
    assert torch.equal(random[:, :4], weight)
    assert 0 < random[:, 4:].abs().max() <= (9 * 9) ** -0.5
    other = torch.randn(8, 9, 3, 3, generator=generator)
    assert torch.equal(widen_conv_in(weight, other, "zero", generator)[:, 4:], other[:, 4:])
    with pytest.raises(LoopAnimateError, match="in the motion module"):
        widen_conv_in(weight, other[:2], "zero", generator)


def test_pia_order_is_its_own_inverse_pair() -> None:
    order = torch.arange(9)
    assert torch.equal(order[list(layouts.OURS_FROM_PIA)][list(layouts.PIA_FROM_OURS)], order)


def test_without_motion_modules_frames_are_independent(folder, text_folder) -> None:
    files = PartFiles(folder, text_encoder=text_folder)
    bundle = assemble(files, seed=3)
    assert bundle.config.schedule.beta_schedule == "scaled_linear"
    assert_same_model(bundle, assemble(files, seed=3))
    x = torch.randn(1, 9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    text = torch.zeros(1, 2, 64)
    with torch.no_grad():
        together = bundle.unet(x, torch.tensor(5), text[:, :1], text)
        alone = bundle.unet(x[:, :, 1:2], torch.tensor(5), text[:, :1], text)
    assert_close(together[:, :, 1:2], alone, depth=NETWORK)


def test_choices(folder, text_folder, adapter) -> None:
    files = PartFiles(folder, adapter, text_encoder=text_folder)
    schedule = ScheduleConfig("scaled_linear", prediction_type="v_prediction")
    bundle = assemble(
        files, routing=("text", "text", "text"), schedule=schedule, dtype=torch.float16
    )
    assert bundle.config.schedule == schedule
    assert bundle.unet.config.routing == ("text", "text", "text")
    assert bundle.unet.conv_in.weight.dtype == bundle.vae.dtype == torch.float16
    assert bundle.provenance["assembled_from"]["motion"] == adapter.name
    with pytest.raises(LoopAnimateError, match="got 'ones'"):
        assemble(files, conv_in_init="ones")
