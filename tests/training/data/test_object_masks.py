"""Masks of objects that have to be found: by which network, in which files, and in which runs."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from accelerate import Accelerator
from onnx import TensorProto, helper
from PIL import Image
from safetensors.torch import load_file, save_file

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.commands.cache import fill_cache
from loopanimate_training.config import RunConfig
from loopanimate_training.data.latent_cache import LatentCache
from loopanimate_training.data.object_masks import ObjectFinder
from loopanimate_training.loop import train
from loopanimate_training.run.origin import MASKS
from loopanimate_training.setup import Run, open_run
from loopanimate_training.storage.checkpoint import load_latest, save_checkpoint
from loopanimate_training.testing import with_settings

Toy = Callable[..., RunConfig]


def network(path: Path, sign: float) -> Path:
    """An ONNX network that finds what is bright, or with sign -1 what is dark ("isnet": pixels minus 0.5)."""
    path.parent.mkdir(exist_ok=True)
    weights = onnx.numpy_helper.from_array(np.full((1, 3, 1, 1), sign * 10, np.float32), "w")
    size = [1, 3, 32, 32]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 32, 32])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    return network(tmp_path / "networks" / "isnet-bright.onnx", 1.0)


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    return network(tmp_path / "networks" / "isnet-dark.onnx", -1.0)


def toy_objects(toy: Toy, network: Path | str = "null", **settings: Any) -> RunConfig:
    return toy(stage=2, **{"clip.mask": "object", "data.saliency": network, **settings})


def opened(config: RunConfig) -> Run:
    return open_run(config, Accelerator(cpu=True), allow_change=False)


def cache_of(config: RunConfig) -> LatentCache:
    return opened(config).loader.cache


def files_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_the_network_of_the_settings_finds_the_object(toy: Toy, bright: Path) -> None:
    """The square of clip 0, frame 0, is at rows 8 to 15 and columns 0 to 7; a latent is 8 pixels wide."""
    masks = cache_of(toy_objects(toy, bright)).get(0, 0).masks
    first = torch.zeros(4, 4, dtype=torch.uint8)
    first[1, 0] = 1
    assert torch.equal(masks[0, 0], first) and int(masks[1].sum()) >= 1


def test_another_network_makes_only_the_masks_again(toy: Toy, bright: Path, dark: Path) -> None:
    one, other = toy_objects(toy, bright), toy_objects(toy, dark)
    assert one.data.cache is not None
    windows = fill_cache(one).windows
    before = files_in(one.data.cache)
    said: list[str] = []
    assert fill_cache(one, say=said.append).windows == windows and "need 0 B" in said[0]
    kept = cache_of(one).get(0, 0).masks
    said.clear()
    assert fill_cache(other, say=said.append).windows == windows and "need 0 B" not in said[0]
    after = files_in(one.data.cache)
    assert after.items() > before.items() and len(after) == len(before) + windows
    found = cache_of(other).get(0, 0).masks
    assert not torch.equal(found, kept) and torch.equal(cache_of(one).get(0, 0).masks, kept)


def test_runs_of_earlier_versions_keep_the_masks_in_their_cache(toy: Toy, bright: Path) -> None:
    """Their checkpoints do not say what found the objects, and windows hold the masks."""
    config = toy_objects(toy, steps=1)
    train(config)
    saved = load_latest(config.out)
    assert saved is not None and saved.origin.pop(MASKS)
    shutil.rmtree(config.out)
    save_checkpoint(config.out, saved, keep=1)
    longer = with_settings(config, steps=2)
    cache = cache_of(longer)
    window = cache.path_of(0, 0)
    tensors = load_file(window)
    tensors["masks"] = 1 - tensors["masks"]
    save_file(tensors, window)
    assert torch.equal(cache.get(0, 0).masks, tensors["masks"])
    train(longer)
    again = load_latest(config.out)
    assert again is not None and again.step == 2 and MASKS not in again.origin
    fresh = with_settings(config, out=str(config.out.with_name("fresh")))
    assert not torch.equal(cache_of(fresh).get(0, 0).masks, tensors["masks"])
    with pytest.raises(LoopAnimateError, match="what finds the object in clips without masks"):
        opened(with_settings(longer, data={"saliency": str(bright)}))


def test_a_changed_network_is_refused(toy: Toy, bright: Path, dark: Path) -> None:
    config = toy_objects(toy, bright, steps=1)
    train(config)
    moved = bright.rename(bright.with_name("isnet-moved.onnx"))
    opened(with_settings(config, data={"saliency": str(moved)}))  # the same network elsewhere
    with pytest.raises(LoopAnimateError, match=r"data\.saliency"):
        opened(with_settings(config, data={"saliency": str(dark)}))
    with pytest.raises(LoopAnimateError, match=r"isnet-bright\.onnx, which is not a file"):
        opened(config)


def test_masks_of_the_data_set_need_no_network(toy: Toy, bright: Path, tmp_path: Path) -> None:
    toy()
    for clip in range(3):
        shutil.copytree(tmp_path / f"frames/clip{clip}", tmp_path / f"frames/clip{clip}.masks")
    cache = cache_of(toy_objects(toy, bright))
    assert cache.masks_path_of(0, 0) is None and not cache.source.lacks_masks
    assert MASKS not in opened(toy_objects(toy, bright)).state.origin


def test_warnings_name_the_clip(
    toy: Toy, bright: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = toy_objects(toy, bright)
    for file in (tmp_path / "frames" / "clip1").iterdir():
        Image.new("RGB", (32, 32)).save(file)
    with caplog.at_level(logging.WARNING):
        masks = cache_of(config).get(1, 0).masks
    assert f"no object stands out in clip1 ({tmp_path}/frames/clip1)" in caplog.text
    assert bool(masks.all())


def test_sheets_show_and_use_the_masks(toy: Toy, bright: Path) -> None:
    settings = {"validation.every_steps": 1, "validation.steps": 1, "validation.clips": 2}
    config = toy_objects(toy, bright, steps=1, **settings)
    config.out.mkdir()
    run = opened(config)
    loops = run.validator.generate_share(0, 1)
    assert [loop.row["object_share"] for loop in loops] == [8 * 8 / 32**2] * 2
    bare = dataclasses.replace(loops[0], preview=None)
    run.validator._save([bare, loops[1]], 1)
    with Image.open(config.out / "sheet-00000001.png") as sheet:
        assert sheet.size == (10 * (32 + 4) + 4, 2 * (32 + 4) + 4)


def test_fingerprints_name_the_method(bright: Path, dark: Path) -> None:
    finders = [ObjectFinder(saliency) for saliency in (None, "grabcut", bright, dark)]
    assert len({finder.fingerprint for finder in finders}) == 4
