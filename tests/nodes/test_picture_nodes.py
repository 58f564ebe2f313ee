"""Load Picture From Folder and Salient Mask."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import extension
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.folder import BUNDLED, list_pictures
from loopanimate_core.picture.images import load_picture, save_picture

MASKING: dict[str, Any] = {
    "method": "auto",
    "threshold": 0.5,
    "grow_px": 0,
    "onnx_model": "none",
}


def combo(node: Any, name: str) -> list[str]:
    return next(entry for entry in node.define_schema().inputs if entry.id == name).own["options"]


def picture(seed: int = 0, channels: int = 3) -> torch.Tensor:
    return torch.rand(24, 32, channels, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------------- pictures of a folder
def test_the_sample_pictures_come_first_and_need_no_copying(nodes: Any) -> None:
    node = nodes["LoadPictureFromFolder"]
    assert combo(node, "folder") == ["LoopAnimate pictures", "input"]
    names = [path.stem for path in list_pictures(BUNDLED)]
    for index, name in enumerate(names):
        image, mask, stem, count = node.execute("LoopAnimate pictures", index).result
        assert image.shape == (1, 512, 512, 3) and mask.shape == (1, 512, 512)
        assert (stem, count) == (name, len(names))


def test_folders_within_input_are_listed_and_loaded(nodes: Any, tmp_path: Path) -> None:
    folder = tmp_path / "input/cats/kittens"
    folder.mkdir(parents=True)
    save_picture(picture(1), folder / "10.png")
    save_picture(picture(2), folder / "9.png")
    node = nodes["LoadPictureFromFolder"]
    assert combo(node, "folder")[1:] == ["input", "input/cats", "input/cats/kittens"]
    output = node.execute("input/cats/kittens", 1)
    image, mask, stem, count = output.result
    (shown,) = output.ui["images"]
    assert load_picture(tmp_path / shown["type"] / shown["filename"]).rgb.shape == (24, 32, 3)
    assert (stem, count) == ("10", 2) and not mask.any()
    assert float((image[0] - picture(1)).abs().max()) < 0.003


def test_transparency_is_white_in_the_picture_and_1_in_the_mask(nodes: Any, tmp_path: Path) -> None:
    rgba = picture(channels=4)
    rgba[..., 3] = 1
    rgba[:8, :, 3] = 0
    save_picture(rgba, tmp_path / "input/a.png")
    image, mask, _, _ = nodes["LoadPictureFromFolder"].execute("input", 0).result
    assert mask[0, :8].min() == 1 and mask[0, 8:].max() == 0
    assert image[0, :8].min() == 1


@pytest.mark.parametrize("folder", ["/", "..", "input/..", "input/../output", "../input/../..", ""])
def test_folders_outside_input_are_rejected(nodes: Any, tmp_path: Path, folder: str) -> None:
    save_picture(picture(), tmp_path / "output/secret.png")
    with pytest.raises(LoopAnimateError, match=r"is outside|has no pictures"):
        nodes["LoadPictureFromFolder"].execute(folder, 0)


def test_end_of_folder_and_damaged_picture_raise_one_sentence(nodes: Any, tmp_path: Path) -> None:
    (tmp_path / "input/broken.png").write_bytes(b"no picture")
    node = nodes["LoadPictureFromFolder"]
    with pytest.raises(LoopAnimateError, match=r"broken\.png is not a picture"):
        node.execute("input", 0)
    with pytest.raises(LoopAnimateError, match="there is no picture 1"):
        node.execute("input", 1)


def test_the_fingerprint_changes_with_the_file_and_is_json(nodes: Any, tmp_path: Path) -> None:
    path = tmp_path / "input/a.png"
    save_picture(picture(), path)
    node = nodes["LoadPictureFromFolder"]
    before = node.fingerprint_inputs("input", 0)
    assert before == json.loads(json.dumps(node.fingerprint_inputs("input", 0)))
    os.utime(path, ns=(1, 1))
    assert node.fingerprint_inputs("input", 0) != before
    assert node.fingerprint_inputs("input", None) == node.fingerprint_inputs("input", 0)
    assert node.fingerprint_inputs(None, None)  # both linked


# ------------------------------------------------------------------------------------------ masks
@pytest.fixture(scope="module")
def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """A red square on pale blue `[1, 80, 96, 3]`, and its mask `[1, 80, 96]`."""
    where = torch.zeros(1, 80, 96)
    where[:, 20:60, 30:70] = 1
    noise = 0.02 * torch.rand(1, 80, 96, 3, generator=torch.Generator().manual_seed(3))
    red, blue = torch.tensor([0.8, 0.2, 0.1]), torch.tensor([0.7, 0.8, 0.95])
    return torch.where(where[..., None] > 0, red, blue) + noise, where


def agreement(mask: torch.Tensor, where: torch.Tensor) -> float:
    return float((mask * where).sum() / (mask + where).clamp(max=1).sum())


def test_object_is_found_without_a_network(nodes: Any, scene: Any) -> None:
    image, where = scene
    mask, preview = nodes["SalientMask"].execute(image, **MASKING).result
    assert mask.shape == (1, 80, 96) and set(mask.unique().tolist()) == {0.0, 1.0}
    assert agreement(mask, where) > 0.95
    assert preview.shape == image.shape
    inside = mask > 0
    assert float((preview - image)[inside].abs().max()) < 1e-6
    assert float(preview[~inside].mean()) < 0.5 * float(image[~inside].mean())


def test_load_image_mask_is_used_first(nodes: Any, scene: Any) -> None:
    image, _ = scene
    object_alpha = torch.zeros(1, 80, 96)
    object_alpha[:, 5:15, 5:15] = 1
    mask, _ = nodes["SalientMask"].execute(image, **MASKING, alpha=1 - object_alpha).result
    assert mask.equal(object_alpha)
    flat, _ = nodes["SalientMask"].execute(image, **MASKING, alpha=1 - object_alpha[0]).result
    assert flat.equal(object_alpha)
    fourth = torch.cat([image, object_alpha[..., None]], -1)
    assert nodes["SalientMask"].execute(fourth, **MASKING).result[0].equal(object_alpha)


def test_load_image_empty_mask_is_ignored(nodes: Any, scene: Any) -> None:
    image, where = scene
    mask, _ = nodes["SalientMask"].execute(image, **MASKING, alpha=torch.zeros(1, 64, 64)).result
    assert agreement(mask, where) > 0.95


def test_a_mask_of_another_size_is_fitted(nodes: Any, scene: Any) -> None:
    image, where = scene
    small = torch.nn.functional.avg_pool2d(1 - where, 2)
    mask, _ = nodes["SalientMask"].execute(image, **MASKING, alpha=small).result
    assert agreement(mask, where) > 0.95


def test_several_pictures_get_a_mask_each(nodes: Any, scene: Any) -> None:
    image, where = scene
    both = torch.cat([image, image.flip(2)])
    mask, _ = nodes["SalientMask"].execute(both, **MASKING | {"grow_px": 2}).result
    assert mask.shape == (2, 80, 96) and float(mask[0].sum()) > float(where.sum())
    assert agreement(mask[1:], where.flip(2)) > 0.8


def test_onnx_models_are_found_in_extra_model_paths(
    nodes: Any, pack: ModuleType, folder_paths: ModuleType, scene: Any, tmp_path: Path
) -> None:
    """A folder from extra_model_paths.yaml is registered before ours, without extensions."""
    theirs = tmp_path / "elsewhere"
    theirs.mkdir()
    (theirs / "readme.txt").write_text("not a network")
    onnx.save(red_detector(), theirs / "red.onnx")
    del folder_paths.folder_names_and_paths["loopanimate_saliency"]
    folder_paths.add_model_folder_path("loopanimate_saliency", str(theirs))
    importlib.import_module(f"{pack.__name__}.nodes").register_folders()
    assert combo(nodes["SalientMask"], "onnx_model") == ["none", "red.onnx"]
    image, where = scene
    settings = MASKING | {"onnx_model": "red.onnx"}
    assert agreement(nodes["SalientMask"].execute(image, **settings).result[0], where) > 0.95


def red_detector() -> onnx.ModelProto:
    """A network whose score is 8 (red - blue), with a fixed size of 80 x 96."""
    shape = [1, 3, 80, 96]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 1, 1], [8.0, 0.0, -8.0])
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "red",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 80, 96])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "magic"}, "method must be one of auto"),
        ({"onnx_model": "x.onnx"}, "there is no file 'x.onnx' in models/loopanimate_saliency"),
        ({"threshold": 1.0}, "threshold"),
    ],
)
def test_invalid_arguments_raise_one_sentence(
    nodes: Any, scene: Any, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(LoopAnimateError, match=words):
        nodes["SalientMask"].execute(scene[0], **MASKING | changes)


def test_the_sample_picture_is_offered_once(folder_paths: Any) -> None:
    """A file of the user's is kept, and nothing fails where nothing can be written."""
    sample = importlib.import_module(f"{extension.PACK}.nodes.sample_picture")
    target = Path(folder_paths.get_input_directory()) / sample.NAME
    sample.offer_sample_picture()
    assert load_picture(target).rgb.shape == (512, 512, 3)
    target.write_bytes(b"mine")
    sample.offer_sample_picture()
    assert target.read_bytes() == b"mine"
    assert [path.name for path in target.parent.iterdir()] == [sample.NAME]
