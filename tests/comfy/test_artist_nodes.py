"""Prompt Travel, Seed Hunt and Interpolate Loop on a real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_graphs import Graph, give_picture, ksampler_graph, loop_graph, node, pictures, saved
from comfy_server import ComfyServer, PromptError
from safetensors.torch import load_file, save_file

TOY = {"bundle": "toy.safetensors", "side": 64}
PLAIN = "bobbing up and down"


@pytest.fixture(scope="module")
def server(comfy: ComfyServer, toy_bundle_path: Path) -> Iterator[ComfyServer]:
    """The shared server with a small bundle and a picture."""
    give_picture(comfy)
    folder = comfy.base_dir / "models/loopanimate"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(toy_bundle_path, folder / "toy.safetensors")
    yield comfy


def run(server: ComfyServer, graph: Graph) -> list[bytes]:
    return pictures(server, server.run(graph))


def travelling(graph: Graph, text: str, prompt: str = "positive") -> Graph:
    return graph | {prompt: node("LoopAnimate_PromptTravel", clip=["load", 1], text=text)}


def farthest(some: list[bytes], others: list[bytes]) -> int:
    """The largest difference of two pixels, of 255."""
    pairs = zip(some, others, strict=True)
    as_array = lambda frame: np.frombuffer(frame, np.uint8).astype(int)  # noqa: E731
    return max(int(np.abs(as_array(a) - as_array(b)).max()) for a, b in pairs)


@pytest.fixture(scope="module")
def stock(server: ComfyServer) -> list[bytes]:
    return run(server, ksampler_graph("ghost.png", prompt=PLAIN, **TOY))


# ------------------------------------------------------------------------------------------ motion LoRAs
MODULE = "down_blocks.0.motion_modules.0."
ORIGINAL = f"{MODULE}temporal_transformer.transformer_blocks.0.attention_blocks.0.processor."
KOHYA = f"lora_unet_{MODULE}transformer_blocks.0.attn1.".replace(".", "_")


def motion_lora(server: ComfyServer, toy: Path, file: str, names: dict[str, str]) -> Graph:
    """A file with updates of a motion module under these names, and a graph that loads it."""
    weights, tensors = load_file(toy), {}
    for layer, name in names.items():
        known = weights.get(f"unet.{MODULE}transformer_blocks.0.attn1.{layer}.weight")
        rows, columns = (16, 16) if known is None else known.shape
        generator = torch.Generator().manual_seed(3)
        for end, shape in (("down", (2, columns)), ("up", (rows, 2))):
            tensors[f"{name}{end}.weight"] = torch.randn(shape, generator=generator)
    folder = server.base_dir / "models/loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / file))
    graph = ksampler_graph("ghost.png", prompt=PLAIN, model=["lora", 0], **TOY)
    loader = {"model": ["load", 0], "lora_name": file, "strength_model": 1.0}
    return graph | {"lora": node("LoraLoaderModelOnly", **loader)}


def test_animatediffs_motion_lora_in_comfyuis_own_node(
    server: ComfyServer, stock: list[bytes], toy_bundle_path: Path
) -> None:
    layers = {"to_q": "to_q", "to_out.0": "to_out"}
    original = {layer: f"{ORIGINAL}{name}_lora." for layer, name in layers.items()}
    moved = run(server, motion_lora(server, toy_bundle_path, "v2_lora_Zoom.safetensors", original))
    assert moved[0] == moved[-1] and farthest(moved, stock) > 0
    kohya = {layer: KOHYA + layer.replace(".", "_") + ".lora_" for layer in layers}
    assert moved == run(server, motion_lora(server, toy_bundle_path, "same.safetensors", kohya))
    assert "lora key not loaded" not in server.log_path.read_text(errors="replace")


def test_layers_that_the_model_does_not_have_are_named(
    server: ComfyServer, toy_bundle_path: Path
) -> None:
    names = {"to_q": f"{ORIGINAL.replace('down_blocks.0', 'down_blocks.7')}to_q_lora."}
    run(server, motion_lora(server, toy_bundle_path, "elsewhere.safetensors", names))
    log = server.log_path.read_text(errors="replace")
    assert f"lora key not loaded: {names['to_q']}up.weight" in log


# ----------------------------------------------------------------------------------------- Prompt Travel
def test_a_prompt_travels_and_the_loop_stays_closed(
    server: ComfyServer, stock: list[bytes]
) -> None:
    graph = ksampler_graph("ghost.png", **TOY)
    frames = run(server, travelling(graph, f"0: {PLAIN}, 7: rocking side to side"))
    assert frames[0] == frames[-1] and len(set(frames)) == 14
    assert farthest(frames, stock) > 0


@pytest.mark.parametrize("text", [PLAIN, f"4: {PLAIN}", f"0: {PLAIN}\n9: {PLAIN}"])
def test_one_text_is_the_plain_prompt(server: ComfyServer, stock: list[bytes], text: str) -> None:
    assert farthest(run(server, travelling(ksampler_graph("ghost.png", **TOY), text)), stock) <= 1


@pytest.mark.parametrize(("closing", "frames"), [("shift", 15), ("windows", 45), ("off", 15)])
def test_it_travels_under_every_closing(server: ComfyServer, closing: str, frames: int) -> None:
    graph = loop_graph("ghost.png", closing=closing, frames=frames, **TOY)
    text = f"0: {PLAIN}, {frames - 2}: rocking side to side"
    assert len(set(run(server, travelling(graph, text)))) == frames - 1


def test_the_negative_prompt_may_travel_too(server: ComfyServer, stock: list[bytes]) -> None:
    graph = ksampler_graph("ghost.png", prompt=PLAIN, **TOY)
    frames = run(server, travelling(graph, "0: blur, 7: noise", "negative"))
    assert frames[0] == frames[-1] and farthest(frames, stock) > 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0: bobbing, 14: rocking", "a key at frame 14, but the frames of this loop are 0 to 13"),
        ("0: bobbing, 3:", "no text at frame 3"),
        ("bobbing, 3: rocking", "must begin with one"),
    ],
)
def test_wrong_keys_get_one_sentence(server: ComfyServer, text: str, sentence: str) -> None:
    with pytest.raises(PromptError, match=sentence):
        server.run(travelling(ksampler_graph("ghost.png", **TOY), text))


def test_a_node_that_would_be_ignored_is_named(server: ComfyServer) -> None:
    graph = travelling(ksampler_graph("ghost.png", **TOY), "0: bobbing, 3: rocking")
    graph["average"] = node(
        "ConditioningAverage",
        conditioning_to=["positive", 0],
        conditioning_from=["negative", 0],
        conditioning_to_strength=0.5,
    )
    graph["build"]["inputs"]["positive"] = ["average", 0]
    with pytest.raises(PromptError, match="changed the text of Prompt Travel"):
        server.run(graph)


# --------------------------------------------------------------------------------------------- Seed Hunt
def hunt_graph(pick: int = 0, **changes: object) -> Graph:
    graph = loop_graph("ghost.png", **TOY)
    hunt = {
        name: graph["sample"]["inputs"][name]
        for name in ("model", "positive", "negative", "latent")
    }
    hunt |= {"vae": ["load", 3], "first_seed": 5, "count": 3, "pick": pick, "steps": 1, "cfg": 0.0}
    graph["hunt"] = node("LoopAnimate_SeedHunt", **{**hunt, **changes})
    graph["sample"]["inputs"]["seed"] = ["hunt", 2]
    return graph


def test_drafts_first_then_only_the_chosen_loop(server: ComfyServer) -> None:
    drawn = server.run(hunt_graph(0))["outputs"]
    (shown,) = drawn["hunt"]["loopanimate_hunt"]
    assert [draft["seed"] for draft in shown["drafts"]] == ["5", "6", "7"]
    assert "save" not in drawn
    for draft in shown["drafts"]:
        assert server.view(draft["sheet"]).startswith(b"\xff\xd8")
    entry = server.run(hunt_graph(2))
    assert entry["outputs"]["hunt"]["loopanimate_hunt"] == [shown], "the drafts were made again"
    assert pictures(server, entry) == run(server, loop_graph("ghost.png", seed=6, **TOY))


def test_the_sheet_plays_and_the_chosen_draft_is_a_loop(server: ComfyServer) -> None:
    graph = hunt_graph(3, first_seed=6)
    graph |= saved(["hunt", 1])
    graph["sheet"] = node("SaveImage", images=["hunt", 0], filename_prefix="sheet")
    entry = server.run(graph)
    draft = loop_graph("ghost.png", seed=8, steps=1, **TOY)
    assert pictures(server, entry) == run(server, draft)
    assert len(set(pictures(server, entry, "sheet"))) == 14


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pick": 4}, "pick must be between 0 and 3"),
        ({"first_seed": 2**64 - 2}, "first_seed must be at most"),
    ],
)
def test_a_choice_that_does_not_exist(
    server: ComfyServer, changes: dict[str, int], sentence: str
) -> None:
    with pytest.raises(PromptError, match=sentence):
        server.run(hunt_graph(**changes))


# -------------------------------------------------------------------------------------- Interpolate Loop
@pytest.mark.parametrize("method", ["motion", "blend"])
def test_a_loop_is_interpolated_round_the_ring(server: ComfyServer, method: str) -> None:
    graph = loop_graph("ghost.png", **TOY)
    before = run(server, graph)
    graph["more"] = node(
        "LoopAnimate_InterpolateLoop", images=["decode", 0], fps=8.0, times=2, method=method
    )
    graph["save"]["inputs"]["images"] = ["more", 0]
    frames = run(server, graph)
    assert frames[::2] == before and len(frames) == 28
    assert frames[-1] not in (frames[-2], frames[0])
