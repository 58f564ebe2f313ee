"""Conversion from and to the layouts of other programs, held against diffusers' own converters."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from loopanimate_core import layouts, sources
from loopanimate_core.bundle import Bundle, read_bundle, write_bundle
from loopanimate_core.components import PARTS, build_on_meta, shapes_of, state_of
from loopanimate_core.convert import PartFiles, assemble, extract, widen_conv_in
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNetConfig
from loopanimate_core.models.layers import sinusoid
from loopanimate_core.schedule import ScheduleConfig

CHANNELS = (32, 64, 64, 64)
CLIP: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "projection_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
}
State = dict[str, torch.Tensor]


class Parts:
    """Toy networks of the real classes: every key of Stable Diffusion 1.x's parts, at small sizes."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        build_unet, build_vae, build_adapter = map(
            _untyped, (UNet2DConditionModel, AutoencoderKL, MotionAdapter)
        )
        self.unet = build_unet(
            block_out_channels=CHANNELS, cross_attention_dim=64, attention_head_dim=8, sample_size=8
        )
        self.vae = build_vae(
            block_out_channels=(32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        self.text_encoder: Any = CLIPTextModel(CLIPTextConfig(vocab_size=49_408, **CLIP))
        self.image_encoder: Any = CLIPVisionModelWithProjection(
            CLIPVisionConfig(image_size=32, patch_size=8, **CLIP)
        )
        self.adapter = build_adapter(
            block_out_channels=CHANNELS, motion_max_seq_length=32, use_motion_mid_block=False
        )
        self.adapter_v2 = build_adapter(
            block_out_channels=CHANNELS, motion_max_seq_length=32, use_motion_mid_block=True
        )

    def save_folders(self, folder: Path) -> Path:
        """sd-image-variations' folders: no text encoder."""
        for part in ("unet", "vae", "image_encoder"):
            getattr(self, part).save_pretrained(folder / part)
        return folder


def _untyped(cls: Any) -> Any:
    return cls


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts()


@pytest.fixture(scope="module")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts.save_folders(tmp_path_factory.mktemp("sd-image-variations"))


@pytest.fixture(scope="module")
def text_folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sd15") / "text_encoder"
    parts.text_encoder.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def adapter(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapter")
    parts.adapter.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def bundle(folder: Path, text_folder: Path, adapter: Path) -> Bundle:
    return assemble(PartFiles(folder, adapter, text_encoder=text_folder), conv_in_init="random")


@pytest.fixture(scope="module")
def extracted(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("extracted")
    for layout in ("diffusers", "checkpoint", "animatediff", "pia", "motion_adapter"):
        for path in extract(bundle, root / layout, layout):
            assert path.is_file()
    return {path.name: path for path in root.iterdir()}


def save(state: State, path: Path) -> Path:
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path)
    return path


def load(path: Path) -> State:
    return safetensors.torch.load_file(path)


def assert_equal(left: Any, right: Any) -> None:
    left, right = dict(left), dict(right)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def assert_same_model(left: Bundle, right: Bundle, *, but: tuple[str, ...] = ()) -> None:
    for part in PARTS:
        a, b = (state_of(part, bundle.module(part)) for bundle in (left, right))
        assert_equal(
            *({k: v for k, v in s.items() if not k.startswith(but or ("-",))} for s in (a, b))
        )


# ------------------------------------------------------------------------------- diffusers folders
def test_folders_become_the_same_network(parts, bundle) -> None:
    unet = bundle.unet.state_dict()
    expected = {**parts.unet.state_dict(), **parts.adapter.state_dict()}
    expected = {k: v for k, v in expected.items() if not k.endswith("pos_embed.pe")}
    conv_in = unet["conv_in.weight"]
    assert torch.equal(conv_in[:, :4], expected["conv_in.weight"])
    assert_equal(
        {**unet, "conv_in.weight": 0 * conv_in}, {**expected, "conv_in.weight": 0 * conv_in}
    )
    assert_equal(bundle.vae.state_dict(), parts.vae.state_dict())
    assert_equal(bundle.text_encoder.state_dict(), parts.text_encoder.state_dict())
    assert_equal(bundle.image_encoder.state_dict(), parts.image_encoder.state_dict())
    config = bundle.config
    assert config.unet.block_out_channels == CHANNELS and config.unet.num_attention_heads == 8
    assert config.vae["scaling_factor"] == 0.18215 and config.tokenizer == "clip"
    assert config.schedule.beta_schedule == "linear"  # AnimateDiff's modules as they are


def test_it_computes_what_diffusers_computes(parts, bundle) -> None:
    """With text everywhere and clip-wide statistics LoopUNet is UNetMotionModel."""
    theirs: Any = UNetMotionModel.from_unet2d(parts.unet, parts.adapter)
    unet = bundle.unet
    config = dataclasses.replace(unet.config, routing=("text",) * 3, norm_scope="clip")
    ours = type(unet)(config)
    ours.load_state_dict(unet.state_dict())
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 4, 3, 8, 8, generator=generator)
    text = torch.randn(1, 5, 64, generator=generator)
    with torch.no_grad():
        conditions = torch.zeros(1, 5, 3, 8, 8)  # the new channels see nothing
        here = ours(torch.cat([sample, conditions], 1), torch.tensor(10), text[:, :1], text)
        there = theirs(sample, 10, text.repeat_interleave(3, 0)).sample
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)


def test_bundle_file_of_an_assembled_model(bundle, tmp_path) -> None:
    write_bundle(tmp_path / "a.safetensors", bundle, torch.float32)
    assert_same_model(read_bundle(tmp_path / "a.safetensors"), bundle)


def test_diffusers_folders_round_trip(bundle, extracted) -> None:
    folder = extracted["diffusers"]
    back = assemble(PartFiles(folder, folder), schedule=bundle.config.schedule)
    assert_same_model(back, bundle)
    assert back.config == bundle.config and back.provenance["conv_in"] == "PIA"


def test_diffusers_reads_the_folders(parts, bundle, extracted) -> None:
    folder = extracted["diffusers"]
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet")
    assert_equal(unet.state_dict(), parts.unet.state_dict())
    adapter: Any = MotionAdapter.from_pretrained(folder / "motion_adapter")
    whole: Any = UNetMotionModel.from_unet2d(unet, adapter)
    nine = bundle.unet.conv_in.weight[:, list(layouts.PIA_FROM_OURS)]
    assert torch.equal(whole.conv_in.weight, nine)
    text: Any = CLIPTextModel.from_pretrained(folder / "text_encoder")
    assert_equal(text.state_dict(), parts.text_encoder.state_dict())
    vae: Any = AutoencoderKL.from_pretrained(folder / "vae")
    assert_equal(vae.state_dict(), parts.vae.state_dict())


def test_own_vocabulary_survives_the_folders(tiny_bundle, tmp_path) -> None:
    extract(tiny_bundle, tmp_path, "diffusers")
    schedule = tiny_bundle.config.schedule
    back = assemble(PartFiles(tmp_path, tmp_path), schedule=schedule)
    assert_same_model(back, tiny_bundle)
    assert back.config.tokenizer == tiny_bundle.config.tokenizer


def test_old_names_and_pickles(parts, folder, tmp_path) -> None:
    """What sd-image-variations really has: .bin, old attention names, position_ids, a whole CLIP."""
    old = tmp_path / "old"
    for part in ("unet", "vae"):
        (old / part).mkdir(parents=True)
        config = json.loads((folder / part / "config.json").read_text())
        config.pop("scaling_factor", None)
        (old / part / "config.json").write_text(json.dumps(config))
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = {}
    for name, tensor in parts.vae.state_dict().items():
        for new, before in names.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        vae[name] = tensor
    assert any("proj_attn" in name for name in vae)
    torch.save(vae, old / "vae" / "diffusion_pytorch_model.bin")
    torch.save(parts.unet.state_dict(), old / "unet" / "diffusion_pytorch_model.bin")
    (old / "image_encoder").mkdir()
    vision = json.loads((folder / "image_encoder" / "config.json").read_text())
    whole = {"model_type": "clip", "projection_dim": 64, "vision_config": vision, "text_config": {}}
    (old / "image_encoder" / "config.json").write_text(json.dumps(whole))
    clip = {
        **parts.image_encoder.state_dict(),
        "vision_model.embeddings.position_ids": torch.arange(17),
        "text_model.embeddings.token_embedding.weight": torch.ones(3, 3),
        "text_projection.weight": torch.ones(3),
        "logit_scale": torch.tensor(1.0),
    }
    torch.save(
        clip, old / "image_encoder" / "pytorch_model.bin", _use_new_zipfile_serialization=False
    )
    read = sources.read_vae(old)
    assert read.settings["scaling_factor"] == 0.18215
    assert_equal(read.state, parts.vae.state_dict())
    assert_equal(sources.read_unet(old).state, parts.unet.state_dict())
    assert_equal(sources.read_image_encoder(old).state, parts.image_encoder.state_dict())


# ------------------------------------------------------------------------------- single-file SD 1.x
def test_checkpoint_round_trip(bundle, extracted) -> None:
    checkpoint = extracted["checkpoint"] / "checkpoint.safetensors"
    encoder = extracted["checkpoint"] / "image_encoder.safetensors"
    pia = extracted["pia"] / "pia.safetensors"
    back = assemble(PartFiles(checkpoint, pia, image_encoder=encoder))
    assert_same_model(back, bundle)
    assert back.config == bundle.config


def test_checkpoint_holds_against_diffusers_converter(parts, folder, extracted) -> None:
    checkpoint = str(extracted["checkpoint"] / "checkpoint.safetensors")
    settings = {"local_files_only": True, "low_cpu_mem_usage": False}
    unet: Any = UNet2DConditionModel.from_single_file(
        checkpoint, config=str(folder / "unet"), **settings
    )
    assert_equal(unet.state_dict(), parts.unet.state_dict())
    vae: Any = AutoencoderKL.from_single_file(checkpoint, config=str(folder / "vae"), **settings)
    assert_equal(vae.state_dict(), parts.vae.state_dict())


def test_checkpoint_has_the_published_keys() -> None:
    """Numbers and names of keys of Stable Diffusion 1.x's single files, at the real sizes."""
    unet = sources.unet_shapes_without_motion(LoopUNetConfig())
    names = {layouts.ldm_unet_name(name, 2): shape for name, shape in unet.items()}
    assert len(names) == 686
    assert names["input_blocks.0.0.weight"] == (320, 4, 3, 3)
    assert names["input_blocks.3.0.op.weight"] == (320, 320, 3, 3)
    assert names["input_blocks.4.0.skip_connection.weight"] == (640, 320, 1, 1)
    assert names["middle_block.1.transformer_blocks.0.attn2.to_k.weight"] == (1280, 768)
    assert names["output_blocks.2.1.conv.weight"] == (1280, 1280, 3, 3)
    assert names["output_blocks.8.2.conv.weight"] == (640, 640, 3, 3)
    assert names["output_blocks.11.1.proj_out.weight"] == (320, 320, 1, 1)
    settings = sources.standard_settings("vae")
    vae = {layouts.ldm_vae_name(n, 4) for n in shapes_of("vae", build_on_meta("vae", settings))}
    assert len(vae) == 248
    assert {"decoder.up.3.upsample.conv.weight", "encoder.mid.attn_1.proj_out.weight"} <= vae
    assert {"encoder.down.1.block.0.nin_shortcut.bias", "decoder.norm_out.weight"} <= vae
    settings = sources.standard_settings("text_encoder")
    assert len(shapes_of("text_encoder", build_on_meta("text_encoder", settings))) == 196


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "image_encoder"])
def test_sizes_read_off_a_full_size_file(part) -> None:
    """The settings inferred from shapes alone are those of the published configs."""
    if part == "unet":
        shapes = sources.unet_shapes_without_motion(LoopUNetConfig())
        state = {n: torch.empty(s, device="meta") for n, s in shapes.items()}
        assert sources._unet_config(state, str, {}, Path()) == LoopUNetConfig()
        return
    settings = sources.standard_settings(part)
    shapes = shapes_of(part, build_on_meta(part, settings))
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    if part == "vae":
        assert sources.vae_sizes(state, "down_blocks", "resnets", Path()) == settings
    else:
        assert getattr(sources, f"{part}_sizes")(state, Path()) == settings


def test_a_trainers_checkpoint_file(parts, extracted, tmp_path) -> None:
    """A .ckpt: wrapper, averages, schedule, position_ids, an epoch; and a text encoder without its prefix."""
    state = load(extracted["checkpoint"] / "checkpoint.safetensors")
    prefix = layouts.TEXT_PREFIX + "text_model."
    state = {k.replace(prefix, layouts.TEXT_PREFIX): v for k, v in state.items()}
    extra = {
        "model_ema.diffusion_modelout2bias": torch.ones(4),
        "model_ema.decay": torch.tensor(0.9),
        "betas": torch.ones(5),
        "sqrt_recipm1_alphas_cumprod": torch.ones(5),
        layouts.TEXT_PREFIX + "embeddings.position_ids": torch.arange(77),
    }
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {**state, **extra}, "epoch": 3, "global_step": 4}, path)
    text = state_of("text_encoder", parts.text_encoder)
    assert_equal(sources.read_text_encoder(path).state, text)
    assert_equal(sources.read_vae(path).state, parts.vae.state_dict())
    assert_equal(sources.read_unet(path).state, parts.unet.state_dict())


def test_parts_from_files_of_their_own(parts, extracted, tmp_path) -> None:
    checkpoint = load(extracted["checkpoint"] / "checkpoint.safetensors")
    vae = {
        k.removeprefix("first_stage_model."): v for k, v in checkpoint.items() if "first_st" in k
    }
    ldm_vae = save({**vae, "loss.logvar": torch.ones(1)}, tmp_path / "vae.safetensors")
    diffusers_vae = save(parts.vae.state_dict(), tmp_path / "vae2.safetensors")
    clip_l = save(
        {
            **state_of("text_encoder", parts.text_encoder),
            "text_projection.weight": torch.ones(64, 64),
            "logit_scale": torch.ones(()),
        },
        tmp_path / "clip_l.safetensors",
    )
    for path in (ldm_vae, diffusers_vae):
        assert_equal(sources.read_vae(path).state, parts.vae.state_dict())
    text = state_of("text_encoder", parts.text_encoder)
    assert_equal(sources.read_text_encoder(clip_l).state, text)


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
            lambda s: {k.replace(".to_q.weight", ".processor.to_q_lora.down.weight"): v for k, v in s.items()},
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
        (lambda s: {"strange.weight": torch.ones(1)}, r"unknown kind; its first tensor is 'strange"),
        (lambda s: {**s, "strange.weight": torch.ones(1)}, "unknown tensor 'strange.weight'"),
        (lambda s: {k: 1.5 * v if "pos_enc" in k else v for k, v in s.items()}, "not AnimateDiff's sinusoid"),
    ],
)  # fmt: skip
def test_motion_files_that_are_rejected(modules, tmp_path, changed, message) -> None:
    path = save(changed(modules), tmp_path / "mm.safetensors")
    with pytest.raises(LoopAnimateError, match=message) as caught:
        sources.read_motion(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda s: {**s, "up_blocks.0.motion_modules.9.temporal_transformer.norm.bias": torch.ones(1)}, "unknown tensor 'up_blocks.0.motion_modules.9.norm.bias'"),
        (lambda s: {k: v[:1] if k.endswith("transformer.norm.bias") else v for k, v in s.items()}, "has shape"),
        (lambda s: {k: v for k, v in s.items() if "ff_norm.bias" not in k}, "lacks the tensor"),
    ],
)  # fmt: skip
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
    with pytest.raises(LoopAnimateError, match="conv_in of the motion module has shape"):
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
    torch.testing.assert_close(together[:, :, 1:2], alone, rtol=1e-4, atol=1e-5)


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
    with pytest.raises(LoopAnimateError, match="conv_in_init is 'ones'"):
        assemble(files, conv_in_init="ones")


# ------------------------------------------------------------------------------------ wrong sources
def test_sources_that_lack_something(parts, folder, text_folder, extracted, tmp_path) -> None:
    with pytest.raises(LoopAnimateError, match="has no text_encoder; give another source"):
        assemble(PartFiles(folder))
    checkpoint = extracted["checkpoint"] / "checkpoint.safetensors"
    with pytest.raises(LoopAnimateError, match="has no image_encoder; give another source"):
        assemble(PartFiles(checkpoint))
    with pytest.raises(LoopAnimateError, match=r"has no config\.json"):
        assemble(PartFiles(tmp_path, text_encoder=text_folder, image_encoder=folder))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LoopAnimateError, match="has no weights"):
        sources.read_unet(tmp_path)
    with pytest.raises(LoopAnimateError, match="there is no file"):
        sources.read_motion(tmp_path / "absent.ckpt")
    with pytest.raises(LoopAnimateError, match="holds no motion modules"):
        sources.read_motion(checkpoint)
    with pytest.raises(LoopAnimateError, match=r"no Stable Diffusion 1\.x UNet"):
        sources.read_unet(extracted["checkpoint"] / "image_encoder.safetensors")
    with pytest.raises(LoopAnimateError, match="no CLIP image encoder"):
        sources.read_image_encoder(checkpoint)
    with pytest.raises(LoopAnimateError, match="no VAE"):
        sources.read_vae(text_folder / "model.safetensors")
    with pytest.raises(LoopAnimateError, match="no CLIP text encoder"):
        sources.read_text_encoder(folder / "unet")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda s: {**s, "model.diffusion_model.label_emb.0.0.weight": torch.ones(1)}, "Diffusion XL"),
        (lambda s: {**s, "conditioner.embedders.0.x": torch.ones(1)}, "Diffusion XL"),
        (lambda s: {**s, "cond_stage_model.model.transformer.x": torch.ones(1)}, "Diffusion 2"),
        (lambda s: {**s, "cond_stage_model.model.visual.x": torch.ones(1)}, "diffusers folder"),
        (lambda s: {**s, "control_model.x": torch.ones(1)}, "ControlNet"),
        (lambda s: {**s, "model.diffusion_model.joint_blocks.0.x": torch.ones(1)}, "another arch"),
        (lambda s: {**s, "surprise": torch.ones(1)}, "unknown tensor 'surprise'"),
        (lambda s: {**s, "model.diffusion_model.out.9.bias": torch.ones(1)}, "unknown tensor 'out.9.bias'"),
        (lambda s: {k: v for k, v in s.items() if not k.endswith("time_embed.0.bias")}, "lacks the tensor 'time_embed.0.bias'"),
        (lambda s: {**s, "model.diffusion_model.out.2.bias": torch.ones(5)}, r"'out.2.bias' has shape \[5\], \[4\]"),
        (lambda s: {**s, "model.diffusion_model.input_blocks.0.0.weight": torch.ones(32, 9, 3, 3)}, "inpainting"),
        (lambda s: {"model.diffusion_model.x": torch.ones(1)}, "lacks tensors"),
    ],
)  # fmt: skip
def test_checkpoints_that_are_rejected(extracted, tmp_path, changed, message) -> None:
    state = load(extracted["checkpoint"] / "checkpoint.safetensors")
    path = save(changed(state), tmp_path / "x.safetensors")
    with pytest.raises(LoopAnimateError, match=message) as caught:
        sources.read_unet(path)
    assert "\n" not in str(caught.value)


def test_a_stable_diffusion_2_folder(folder, tmp_path) -> None:
    config = json.loads((folder / "unet" / "config.json").read_text())
    config["attention_head_dim"] = [5, 10, 20, 20]
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = "diffusion_pytorch_model.safetensors"
    (tmp_path / weights).write_bytes((folder / "unet" / weights).read_bytes())
    with pytest.raises(LoopAnimateError, match=r"Stable Diffusion 2\.x or XL"):
        sources.read_unet(tmp_path)


class Surprise:
    """What a pickle must not be able to bring along."""


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_that_are_not_opened(tmp_path, zipped) -> None:
    path = tmp_path / "mm.ckpt"
    content = {"state_dict": {"a": torch.ones(2)}, "args": Surprise()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(LoopAnimateError, match="holds Python objects besides tensors"):
        sources.read_motion(path)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"not a pickle"]
)
def test_damaged_pickles(tmp_path, damage) -> None:
    path = tmp_path / "mm.ckpt"
    torch.save({"a": torch.ones(1000)}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(LoopAnimateError, match=r"damaged or not a PyTorch file|not a readable"):
        sources.read_motion(path)
    torch.save([1, 2], path)
    with pytest.raises(LoopAnimateError, match="holds no named tensors"):
        sources.read_motion(path)


def test_extracting_what_a_layout_cannot_hold(bundle, tiny_bundle, tmp_path) -> None:
    with pytest.raises(LoopAnimateError, match="unknown layout 'onnx'"):
        extract(bundle, tmp_path, "onnx")
    with pytest.raises(LoopAnimateError, match="own vocabulary"):
        extract(tiny_bundle, tmp_path, "checkpoint")
    (tmp_path / "file").write_text("")
    with pytest.raises(LoopAnimateError, match="cannot make the folder"):
        extract(bundle, tmp_path / "file", "pia")


def test_sinusoid_is_diffusers_table(parts) -> None:
    table = next(v for k, v in parts.adapter.state_dict().items() if k.endswith("pos_embed.pe"))
    torch.testing.assert_close(sinusoid(torch.arange(32), table.shape[-1]), table[0])
