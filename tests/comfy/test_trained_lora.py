"""A LoRA from the trainer in ComfyUI's LoRA nodes, compared with the bundle exported from the same run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from comfy_graphs import Graph, node, pictures
from comfy_server import PACK, ComfyServer
from safetensors.torch import load_file, save_file

from loopanimate_core.bundle import mini_bundle_path
from loopanimate_training import demo
from loopanimate_training.cli import main

LORA, MERGED = "trained_style.safetensors", "trained_styled.safetensors"
MODEL, WORDS, CONDITIONS, SAMPLER, DECODED = "2", ("4", "5"), "7", "8", "9"  # in the workflow


class Exports(NamedTuple):
    """The files that `export` wrote for one run."""

    lora: Path
    merged: Path


def run_trainer(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0, words


@pytest.fixture(scope="module")
def exports(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """A LoRA trained for eight steps on videos of the bundled pictures, and the run's bundle."""
    work = tmp_path_factory.mktemp("lora")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "VERBS", demo.VERBS[:1])
        demo.write_clips(work / "clips")
    settings = {
        "out": work / "run",
        "model.start": mini_bundle_path(),
        "model.lora.rank": 4,
        "model.lora.alpha": 8,  # different from the rank, so that a loader that ignores alpha fails
        "data.path": work / "clips",
        "data.index": work / "index",
        "steps": 8,
        "batch.size": 1,
        "optimizer.lr": 0.01,  # 100 times the default, for a visible change after a few steps
        "optimizer.warmup_steps": 0,
        "optimizer.ema_decay": 0,
    }
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    run_trainer("--stage", "1-lora", "--config", demo.RECIPES / "demo.yaml", *sets)
    made = Exports(work / LORA, work / MERGED)
    run_trainer("export", work / "run", "--lora", "-o", made.lora)
    run_trainer("export", work / "run", "-o", made.merged)
    return made


@pytest.fixture(scope="module")
def server(comfy: ComfyServer, exports: Exports) -> Iterator[ComfyServer]:
    """The shared server with both files; they are removed afterwards, because other tests count its bundles."""
    places = {exports.lora: "loras", exports.merged: "loopanimate"}
    put = []
    for path, kind in places.items():
        folder = comfy.base_dir / "models" / kind
        folder.mkdir(parents=True, exist_ok=True)
        put.append(Path(shutil.copy(path, folder)))
    yield comfy
    for path in put:
        path.unlink()


def basic_workflow(bundle: str = "mini (bundled)") -> Graph:
    """The packaged workflow with fewer frames and steps, which also saves lossless frames."""
    graph: Graph = json.loads((PACK / "workflows/api/loopanimate_basic_api.json").read_text())
    graph[MODEL]["inputs"]["bundle"] = bundle
    graph[CONDITIONS]["inputs"]["frames"] = 15
    graph[SAMPLER]["inputs"]["steps"] = 4
    graph["save"] = node("SaveImage", images=[DECODED, 0], filename_prefix="lora")
    return graph


def with_lora(strength: float, name: str = LORA) -> Graph:
    graph = basic_workflow()
    graph["lora"] = node(
        "LoraLoaderModelOnly", model=[MODEL, 0], lora_name=name, strength_model=strength
    )
    graph[SAMPLER]["inputs"]["model"] = ["lora", 0]
    return graph


def frames_of(server: ComfyServer, graph: Graph) -> np.ndarray:
    """All values of the saved frames, 0..255."""
    saved = pictures(server, server.run(graph))
    assert len(saved) == 14
    return np.frombuffer(b"".join(saved), np.uint8).astype(int)


@pytest.fixture(scope="module")
def plain(server: ComfyServer) -> np.ndarray:
    """The loop of the mini without the LoRA."""
    return frames_of(server, basic_workflow())


@pytest.fixture(scope="module")
def styled(server: ComfyServer, plain: np.ndarray) -> np.ndarray:
    """The same loop with the LoRA at strength 1; ComfyUI must know all of its keys."""
    logged = len(server.log())
    frames = frames_of(server, with_lora(1.0))
    log = server.log()[logged:]
    assert not [said for said in ("lora key not loaded", "NOT LOADED", "ERROR") if said in log]
    return frames


def test_lora_equals_the_merged_bundle(
    server: ComfyServer, plain: np.ndarray, styled: np.ndarray
) -> None:
    """Both files are in half precision but rounded at different places: the bundle's weights after the sum, the
    LoRA's factors before it (ComfyUI adds in single precision). So weights agree to one part in 2,000. Measured:
    this changes 2 values in 1,000 by one level of 255 (0.002 on average), the LoRA changes them by 7, and an error
    of one percent in its strength by 0.06.
    """
    assert np.abs(styled - plain).mean() > 2
    apart = np.abs(styled - frames_of(server, basic_workflow(MERGED)))
    assert apart.max() <= 2 and apart.mean() < 0.02, (apart.max(), apart.mean())


def test_strength_0_equals_the_model_without_lora(
    server: ComfyServer, plain: np.ndarray, styled: np.ndarray
) -> None:
    """Also right after a run with strength 0.5."""
    half = frames_of(server, with_lora(0.5))
    assert all(np.abs(half - whole).mean() > 0.5 for whole in (plain, styled))
    assert np.array_equal(frames_of(server, with_lora(0.0)), plain)


def test_load_lora_with_clip_gives_the_same_loop(server: ComfyServer, styled: np.ndarray) -> None:
    """The trainer's LoRAs have no weights for the text encoder, so Load LoRA does not change it."""
    graph = with_lora(1.0)
    graph["lora"] = node(
        "LoraLoader",
        model=[MODEL, 0],
        clip=[MODEL, 1],
        lora_name=LORA,
        strength_model=1.0,
        strength_clip=1.0,
    )
    for words in WORDS:
        graph[words]["inputs"]["clip"] = ["lora", 1]
    assert np.array_equal(frames_of(server, graph), styled)


def test_unknown_lora_keys_are_logged(server: ComfyServer, exports: Exports) -> None:
    """Shows that ComfyUI does log a warning for unknown keys."""
    tensors = load_file(exports.lora)
    name = next(name for name in tensors if name.endswith("lora_up.weight"))
    tensors["lora_unet_elsewhere.lora_up.weight"] = tensors.pop(name)
    path = server.base_dir / "models/loras/renamed.safetensors"
    save_file(tensors, path)
    graph = with_lora(1.0, path.name)
    graph[SAMPLER]["inputs"]["steps"] = 1
    logged = len(server.log())
    server.run(graph)
    path.unlink()
    assert "lora key not loaded: lora_unet_elsewhere" in server.log()[logged:]
