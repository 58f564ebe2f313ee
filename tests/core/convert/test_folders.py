"""Folders and single files, held against diffusers' own converters."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel
from networks import CHANNELS, assert_equal, assert_same_model, load, save
from transformers import (
    CLIPTextModel,
)

from loopanimate_core.bundle import read_bundle, write_bundle
from loopanimate_core.bundle.components import build_on_meta, shapes_of, state_of
from loopanimate_core.convert import layouts, sources
from loopanimate_core.convert.assemble import PartFiles, assemble
from loopanimate_core.convert.extract import extract
from loopanimate_core.models import LoopUNetConfig

pytestmark = pytest.mark.numeric


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
    assert_close(here, there, depth=NETWORK)


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
