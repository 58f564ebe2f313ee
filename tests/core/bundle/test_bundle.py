"""The bundle file: round trip, invalid files, and the parameter counts of Table 1."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from closeness import NETWORK, assert_close
from PIL import Image

from loopanimate_core.bundle import (
    Bundle,
    BundleConfig,
    bundle_info,
    mini_bundle_path,
    read_bundle,
    read_parts,
    write_bundle,
)
from loopanimate_core.bundle.components import PARTS, state_of
from loopanimate_core.encoders.image import encode_image
from loopanimate_core.encoders.text import encode_prompts
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNetConfig
from loopanimate_core.models.parts import (
    STAGE_PARTS,
    in_part,
    is_idle,
    parameter_table,
    part_of,
)
from loopanimate_core.picture.shapes import Shape

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def file(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tiny.safetensors"
    write_bundle(path, tiny_bundle, torch.float32, title="Tiny", author="A test", license="MIT")
    return path


def rewrite(source: Path, target: Path, *, metadata=None, tensors=None) -> Path:
    """A copy with some metadata strings or tensors replaced; None removes one."""
    with safetensors.safe_open(str(source), "pt") as handle:
        strings = handle.metadata()
        weights = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    strings = {k: v for k, v in {**strings, **(metadata or {})}.items() if v is not None}
    weights = {k: v for k, v in {**weights, **(tensors or {})}.items() if v is not None}
    safetensors.torch.save_file(weights, target, strings)
    return target


# ----------------------------------------------------------------------------------- round trip
def test_float32_round_trip_is_bit_identical(tiny_bundle, file) -> None:
    back = read_bundle(file)
    assert back.config == tiny_bundle.config
    assert back.provenance == tiny_bundle.provenance and back.path == file
    for part in PARTS:
        before, after = (state_of(part, b.module(part)) for b in (tiny_bundle, back))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert not back.module(part).training


def test_modules_read_from_a_file_compute_the_same(tiny_bundle, file) -> None:
    picture = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    before, after = [
        (
            encode_prompts(bundle.tokenizer, bundle.text_encoder, ["a cat"]),
            encode_image(bundle.image_encoder, picture),
        )
        for bundle in (tiny_bundle, read_bundle(file))
    ]
    for ours, theirs in zip(after, before, strict=True):
        assert_close(ours, theirs, depth=NETWORK)


def test_half_precision_file(tiny_bundle, tmp_path) -> None:
    path = tmp_path / "half.safetensors"
    write_bundle(path, tiny_bundle)
    assert bundle_info(path).dtype == "F16"
    weight = read_bundle(path).unet.conv_in.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, tiny_bundle.unet.conv_in.weight.half().float())
    assert read_bundle(path, dtype=torch.bfloat16).vae.dtype == torch.bfloat16


def test_the_file_is_plain_safetensors_with_classic_names(file) -> None:
    tensors = safetensors.torch.load_file(file)
    assert "text_encoder.text_model.embeddings.token_embedding.weight" in tensors
    assert "image_encoder.vision_model.embeddings.class_embedding" in tensors
    assert "unet.conv_in.weight" in tensors and "vae.decoder.conv_in.weight" in tensors
    assert {name.split(".")[0] for name in tensors} == set(PARTS)


def test_header_has_the_modelspec_fields_and_a_thumbnail(tiny_bundle, tmp_path) -> None:
    path = tmp_path / "spec.safetensors"
    picture = Image.new("RGBA", (900, 300), (255, 0, 0, 128))
    write_bundle(path, tiny_bundle, title="T", author="A", license="MIT", thumbnail=picture)
    metadata = bundle_info(path).metadata
    assert metadata["modelspec.sai_model_spec"] == "1.0.0"
    assert metadata["modelspec.title"] == "T" and metadata["modelspec.license"] == "MIT"
    assert metadata["modelspec.resolution"] == "64x64"
    assert "15, 21, 35 frames" in metadata["modelspec.usage_hint"]
    kind, data = metadata["modelspec.thumbnail"].split(",")
    assert kind == "data:image/jpeg;base64"
    (tmp_path / "t.jpg").write_bytes(base64.b64decode(data))
    assert Image.open(tmp_path / "t.jpg").size == (256, 85)


def test_info_reads_only_the_header(tiny_bundle, file, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(safetensors, "safe_open", None)
    info = bundle_info(file)
    assert info.config == tiny_bundle.config and info.provenance == {"made by": "a test"}
    assert info.parameters["unet"] == sum(p.numel() for p in tiny_bundle.unet.parameters())
    assert info.size_bytes == file.stat().st_size


def test_parts_are_state_dicts_under_classic_names(tiny_bundle, file) -> None:
    parts = read_parts(file, dtype=torch.float16)
    assert parts.config == tiny_bundle.config
    assert parts.states["unet"]["conv_in.weight"].dtype == torch.float16
    assert "text_model.final_layer_norm.weight" in parts.states["text_encoder"]


def test_parts_need_neither_diffusers_nor_transformers(file) -> None:
    """ComfyUI builds the networks with its own classes."""
    script = f"""
import sys
sys.modules["diffusers"] = sys.modules["transformers"] = None
from loopanimate_core.bundle import bundle_info, read_parts
print(len(read_parts({str(file)!r}).states), bundle_info({str(file)!r}).dtype)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "4 F32\n", done.stderr


def test_a_failed_write_leaves_the_old_file(tiny_bundle, file, tmp_path, monkeypatch) -> None:
    path = tmp_path / "old.safetensors"
    shutil.copy(file, path)

    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("loopanimate_core.bundle.tensorfile.require_finite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(path, tiny_bundle)
    assert path.read_bytes() == file.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["old.safetensors"]


# ----------------------------------------------------------------------------------- wrong files
def test_missing_file_and_folder(tmp_path) -> None:
    with pytest.raises(LoopAnimateError, match="there is no file"):
        read_bundle(tmp_path / "absent.safetensors")
    with pytest.raises(LoopAnimateError, match="is a folder"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x08\0\0", "is not a safetensors file"),
        (b"GIF89a" + bytes(100), "is not a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "is not a safetensors file"),
        (struct.pack("<Q", 1 << 60) + b"x", "is not a safetensors file"),
    ],
)
def test_other_formats(tmp_path, content, message) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(LoopAnimateError, match=message):
        read_bundle(path)


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.999])
def test_truncated(file, tmp_path, keep) -> None:
    path = tmp_path / "cut.safetensors"
    content = file.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(LoopAnimateError, match="incomplete"):
        read_bundle(path)
    with pytest.raises(LoopAnimateError, match="incomplete"):
        bundle_info(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_another_name(tmp_path, zipped) -> None:
    path = tmp_path / "x.safetensors"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(LoopAnimateError, match="is a PyTorch pickle"):
        read_bundle(path)


def test_a_foreign_safetensors_file(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": torch.ones(2)}, path)
    with pytest.raises(LoopAnimateError, match=r"not a LoopAnimate bundle.*convert"):
        read_bundle(path)


def changed_config(bundle: Bundle, **changes) -> dict[str, str]:
    return {"config": json.dumps({**bundle.config.to_dict(), **changes})}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "unknown entry 'surprise'"),
        ({"frames": [15, 20]}, "got 20"),
        ({"frames": [37]}, "got 37"),
        ({"vae": {"_class_name": "VQModel"}}, "got 'VQModel'"),
        ({"schedule": {"beta_schedule": "cosine"}}, "got 'cosine'"),
        ({"schedule": {"gamma": 1}}, "gamma"),
        ({"unet": {"depth": 1}}, "unknown UNet setting 'depth'"),
        (
            {"unet": {"norm_num_groups": 0}},
            "norm_num_groups of the UNet must be a whole number above 0, got 0",
        ),
        ({"unet": 5}, "must be an object, got 5"),
        ({"text_encoder": {"hidden_size": 99}}, r"hidden_size must be .*\(16\), got 99"),
        ({"tokenizer": "t5"}, "tokenizer must be"),
        ({"tokenizer": "clip"}, "tokenizer has 49408 tokens, but the text encoder has only 514"),
        ({"image_encoder": {"projection_dim": 16, "hidden_size": 15}}, "image_encoder"),
    ],
)
def test_wrong_config(tiny_bundle, file, tmp_path, changes, message) -> None:
    path = rewrite(
        file, tmp_path / "x.safetensors", metadata=changed_config(tiny_bundle, **changes)
    )
    with pytest.raises(LoopAnimateError, match=message) as caught:
        read_bundle(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "loopanimate/3"}, "update LoopAnimate"),
        ({"config": "{"}, "is not JSON"),
        ({"config": "[]"}, "must be an object, got a list"),
        ({"config": None}, "missing or damaged"),
    ],
)
def test_wrong_metadata(file, tmp_path, metadata, message) -> None:
    path = rewrite(file, tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(LoopAnimateError, match=message):
        bundle_info(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"unet.extra.weight": torch.ones(1)}, "unet has an unknown tensor 'extra.weight'"),
        ({"clip.x": torch.ones(1)}, "unknown tensor 'clip.x'"),
        ({"unet.conv_in.bias": None}, "unet has no tensor 'conv_in.bias'"),
        ({"vae.quant_conv.bias": torch.ones(3)}, "'quant_conv.bias' must have shape .8., got .3."),
        (
            {"image_encoder.visual_projection.weight": torch.full((16, 16), float("nan"))},
            "'image_encoder.visual_projection.weight' has NaN",
        ),
        (
            {"unet.conv_in.bias": torch.full((8,), float("inf"))},
            "'unet.conv_in.bias' has NaN or inf",
        ),
    ],
)
def test_wrong_tensors(file, tmp_path, tensors, message) -> None:
    path = rewrite(file, tmp_path / "x.safetensors", tensors=tensors)
    with pytest.raises(LoopAnimateError, match=message):
        read_bundle(path)


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_cannot_be_stored(tiny_bundle, tmp_path, value) -> None:
    bundle = dataclasses.replace(tiny_bundle, vae=read_fresh_vae(tiny_bundle))
    with torch.no_grad():
        bundle.vae.quant_conv.bias[0] = value
    with pytest.raises(LoopAnimateError, match=r"'vae.quant_conv.bias' has NaN or infinite"):
        write_bundle(tmp_path / "x.safetensors", bundle)
    assert not list(tmp_path.iterdir())


def read_fresh_vae(bundle: Bundle):
    vae = type(bundle.vae)(**{k: v for k, v in bundle.config.vae.items() if k[0] != "_"})
    vae.load_state_dict(bundle.vae.state_dict())
    return vae


def test_weights_with_shapes_that_do_not_match_the_config(tiny_bundle, tmp_path) -> None:
    wrong = dataclasses.replace(tiny_bundle.config.unet, layers_per_block=1)
    bundle = dataclasses.replace(
        tiny_bundle, config=dataclasses.replace(tiny_bundle.config, unet=wrong)
    )
    with pytest.raises(LoopAnimateError, match="the unet has an unknown tensor"):
        write_bundle(tmp_path / "x.safetensors", bundle)


def test_config_survives_json(tiny_bundle) -> None:
    config = tiny_bundle.config
    assert BundleConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_shapes_are_optional_and_survive_json(tiny_bundle: Bundle) -> None:
    config = tiny_bundle.config
    size = Shape(config.width_px, config.height_px)
    assert "shapes" not in config.to_dict() and config.all_shapes == (size,)
    shaped = dataclasses.replace(config, shapes=(size, Shape(80, 48), Shape(48, 80)))
    values = json.loads(json.dumps(shaped.to_dict()))
    assert values["shapes"] == [[64, 64], [80, 48], [48, 80]]
    back = BundleConfig.from_dict(values)
    assert back == shaped and back.all_shapes[1].width_px == 80
    with pytest.raises(LoopAnimateError, match="64 x 64, got 80 x 48"):
        dataclasses.replace(config, shapes=(Shape(80, 48),))


def test_mini_bundle_is_in_the_package() -> None:
    assert mini_bundle_path().parent.name == "data"


# --------------------------------------------------------------------------------------- Table 1
def test_parameter_counts_match_table_1() -> None:
    rows = {row.name: row for row in parameter_table(LoopUNetConfig())}
    megabytes = {name: f"{row.megabytes:.2f}" for name, row in rows.items()}
    assert megabytes["conv_in"] == "0.10"
    assert megabytes["CAB"] == "969.63"
    assert megabytes["TEMM"] == "1668.55"
    assert megabytes["TEMM.Q"] == megabytes["TEMM.K"] == megabytes["TEMM.V"] == "151.55"
    assert rows["stage 1 trains"].parameters == 659_572_480
    assert rows["stage 2 trains"].parameters == 417_163_840
    assert rows["stage 3 trains"].parameters == 75_802_240
    assert rows["whole UNet"].parameters == 1_276_672_964


def test_parts_of_every_parameter(tiny_bundle) -> None:
    counts = {}
    for name, _ in tiny_bundle.unet.named_parameters():
        counts[part_of(name)] = counts.get(part_of(name), 0) + 1
        stages = [n for n in STAGE_PARTS if any(in_part(name, part) for part in STAGE_PARTS[n])]
        assert stages == list(
            range(1, len(stages) + 1)
        )  # each stage trains a part of the one before
    assert counts["conv_in"] == 2 and counts["temm.q"] == counts["temm.v"] == 40


def test_idle_parameters_have_no_gradient(tiny_bundle) -> None:
    unet, config = tiny_bundle.unet, tiny_bundle.config.unet
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(1, 9, 3, 16, 16, generator=generator)
    unet.speedups.one_token = False  # the plain form, which computes queries and keys
    image, text = (torch.randn(1, n, 16, generator=generator) for n in (1, 5))
    unet(sample, torch.tensor(500), image, text).square().sum().backward()
    unet.speedups.one_token = True
    for name, parameter in unet.named_parameters():
        largest = 0.0 if parameter.grad is None else parameter.grad.abs().max().item()
        assert (largest < 1e-5) == is_idle(name, config), name
    unet.zero_grad()
