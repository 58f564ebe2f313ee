"""Sources that lack something, are of another kind, or are not to be trusted."""

from __future__ import annotations

import json

import pytest
import torch
from networks import load, save

from loopanimate_core.convert import sources
from loopanimate_core.convert.assemble import PartFiles, assemble
from loopanimate_core.convert.extract import extract
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models.layers import sinusoid


# ------------------------------------------------------------------------------------ wrong sources
def test_sources_that_lack_something(parts, folder, text_folder, extracted, tmp_path) -> None:
    with pytest.raises(LoopAnimateError, match="has no text_encoder; another source"):
        assemble(PartFiles(folder))
    checkpoint = extracted["checkpoint"] / "checkpoint.safetensors"
    with pytest.raises(LoopAnimateError, match="has no image_encoder; another source"):
        assemble(PartFiles(checkpoint))
    with pytest.raises(LoopAnimateError, match=r"has no config\.json"):
        assemble(PartFiles(tmp_path, text_encoder=text_folder, image_encoder=folder))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LoopAnimateError, match="has no weights"):
        sources.read_unet(tmp_path)
    with pytest.raises(LoopAnimateError, match="there is no file"):
        sources.read_motion(tmp_path / "absent.ckpt")
    with pytest.raises(LoopAnimateError, match="has no motion modules"):
        sources.read_motion(checkpoint)
    with pytest.raises(LoopAnimateError, match=r"no Stable Diffusion 1\.x UNet"):
        sources.read_unet(extracted["checkpoint"] / "image_encoder.safetensors")
    with pytest.raises(LoopAnimateError, match="no CLIP image encoder"):
        sources.read_image_encoder(checkpoint)
    with pytest.raises(LoopAnimateError, match=r"no Stable Diffusion 1\.x VAE"):
        sources.read_vae(text_folder / "model.safetensors")
    with pytest.raises(LoopAnimateError, match="no CLIP text encoder"):
        sources.read_text_encoder(folder / "unet")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            lambda s: {**s, "model.diffusion_model.label_emb.0.0.weight": torch.ones(1)},
            "Diffusion XL",
        ),
        (lambda s: {**s, "conditioner.embedders.0.x": torch.ones(1)}, "Diffusion XL"),
        (lambda s: {**s, "cond_stage_model.model.transformer.x": torch.ones(1)}, "Diffusion 2"),
        (lambda s: {**s, "cond_stage_model.model.visual.x": torch.ones(1)}, "diffusers folder"),
        (lambda s: {**s, "control_model.x": torch.ones(1)}, "ControlNet"),
        (lambda s: {**s, "model.diffusion_model.joint_blocks.0.x": torch.ones(1)}, "another arch"),
        (lambda s: {**s, "surprise": torch.ones(1)}, "unknown tensor 'surprise'"),
        (
            lambda s: {**s, "model.diffusion_model.out.9.bias": torch.ones(1)},
            "unknown tensor 'out.9.bias'",
        ),
        (
            lambda s: {k: v for k, v in s.items() if not k.endswith("time_embed.0.bias")},
            "has no tensor 'time_embed.0.bias'",
        ),
        (
            lambda s: {**s, "model.diffusion_model.out.2.bias": torch.ones(5)},
            r"'out.2.bias' must have shape \[4\], got \[5\]",
        ),
        (
            lambda s: {
                **s,
                "model.diffusion_model.input_blocks.0.0.weight": torch.ones(32, 9, 3, 3),
            },
            "inpainting",
        ),
        (lambda s: {"model.diffusion_model.x": torch.ones(1)}, "does not have all tensors"),
    ],
)
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
    """An object that must not be unpickled."""


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_that_are_not_opened(tmp_path, zipped) -> None:
    path = tmp_path / "mm.ckpt"
    content = {"state_dict": {"a": torch.ones(2)}, "args": Surprise()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(LoopAnimateError, match="has Python objects besides tensors"):
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
    with pytest.raises(LoopAnimateError, match="has no named tensors"):
        sources.read_motion(path)


def test_extracting_what_a_layout_cannot_hold(bundle, tiny_bundle, tmp_path) -> None:
    with pytest.raises(LoopAnimateError, match="got 'onnx'"):
        extract(bundle, tmp_path, "onnx")
    with pytest.raises(LoopAnimateError, match="own vocabulary"):
        extract(tiny_bundle, tmp_path, "checkpoint")
    (tmp_path / "file").write_text("")
    with pytest.raises(LoopAnimateError, match="cannot create the folder"):
        extract(bundle, tmp_path / "file", "pia")


def test_sinusoid_is_diffusers_table(parts) -> None:
    table = next(v for k, v in parts.adapter.state_dict().items() if k.endswith("pos_embed.pe"))
    torch.testing.assert_close(sinusoid(torch.arange(32), table.shape[-1]), table[0])
