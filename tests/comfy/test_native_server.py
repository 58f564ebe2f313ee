"""The native types on a real server: stock samplers, LoRAs, previews, interrupts, caches, determinism."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_graphs import (
    Graph,
    give_picture,
    ksampler_graph,
    load_node,
    loop_check,
    loop_graph,
    node,
    pictures,
    saved,
)
from comfy_server import ComfyServer, PromptError
from comfy_websocket import Listener
from PIL import Image
from safetensors.torch import load_file, save_file

TOY = {"bundle": "toy.safetensors", "side": 64}


@pytest.fixture(scope="module")
def stock(server: ComfyServer) -> list[bytes]:
    """Frames of a loop by ComfyUI's KSampler."""
    return pictures(server, server.run(ksampler_graph("ghost.png", **TOY)))


def run(server: ComfyServer, graph: Graph) -> list[bytes]:
    return pictures(server, server.run(graph))


def test_stock_ksampler_closes_the_loop(stock: list[bytes]) -> None:
    assert len(stock) == 15
    assert stock[0] == stock[-1]
    assert len(set(stock)) == 14


def test_sampler_custom_advanced_agrees_with_ksampler(
    server: ComfyServer, stock: list[bytes]
) -> None:
    graph = ksampler_graph("ghost.png", **TOY) | {
        "noise": node("RandomNoise", noise_seed=1),
        "guider": node(
            "CFGGuider", model=["load", 0], positive=["build", 0], negative=["build", 1], cfg=2.0
        ),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["load", 0], scheduler="normal", steps=2, denoise=1),
        "sample": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["sampler", 0],
            sigmas=["sigmas", 0],
            latent_image=["build", 2],
        ),
    }
    assert run(server, graph) == stock


def test_loop_sampler_agrees_with_ksampler(server: ComfyServer, stock: list[bytes]) -> None:
    graph = loop_graph("ghost.png", steps=2, cfg=2.0, sampler="euler", scheduler="normal", **TOY)
    assert run(server, graph) == stock[:-1]


def test_loop_sampler_uses_the_models_defaults(server: ComfyServer) -> None:
    """The toy's defaults are 2 steps, guidance 2 and dpmpp_2m_lu."""
    explicit = {"steps": 2, "cfg": 2.0, "sampler": "dpmpp_2m", "scheduler": "exponential"}
    best = run(server, loop_graph("ghost.png", **TOY))
    assert best == run(server, loop_graph("ghost.png", **explicit, **TOY))
    assert best != run(server, loop_graph("ghost.png", **{**explicit, "cfg": 3.0}, **TOY))


@pytest.mark.parametrize(
    ("closing", "frames"), [("shift", 15), ("windows", 15), ("windows", 45), ("off", 15)]
)
def test_closings(server: ComfyServer, closing: str, frames: int) -> None:
    """Every closing returns the frames that play; windows sample loops longer than the model's positions."""
    graph = loop_graph("ghost.png", closing=closing, frames=frames, **TOY)
    assert len(set(run(server, graph))) == frames - 1


def test_hold_still(server: ComfyServer) -> None:
    """The toy's default level is 0, which workflows saved without the setting use."""
    graph = loop_graph("ghost.png", **TOY)
    own = run(server, graph)
    found = {}
    for level in (0.0, 0.9):
        graph["sample"]["inputs"]["hold_still"] = level
        found[level] = run(server, graph)
    assert found[0.0] == own and found[0.9] != own


def test_too_many_frames_raise_one_sentence(server: ComfyServer) -> None:
    with pytest.raises(
        PromptError, match=r"frames must be at most 35, .* got 45; use closing 'windows'"
    ):
        server.run(loop_graph("ghost.png", frames=45, **TOY))


def test_a_finished_loop_can_be_sampled_again(server: ComfyServer) -> None:
    graph = loop_graph("ghost.png", **TOY)
    again = {**graph["sample"]["inputs"], "latent": ["sample", 0], "seed": 5}
    graph["again"] = node("LoopAnimate_LoopSampler", **again)
    graph |= saved(["again", 0])
    assert len(run(server, graph)) == 14


def test_a_batch_of_pictures_makes_one_loop_of_each(server: ComfyServer) -> None:
    give_picture(server, "sun.png")
    graph = loop_graph("ghost.png", **TOY)
    alone = run(server, graph)
    graph["sun"] = node("LoadImage", image="sun.png")
    graph["both"] = node("ImageBatch", image1=["image", 0], image2=["sun", 0])
    graph["build"]["inputs"]["image"] = ["both", 0]
    frames = run(server, graph)
    assert len(frames) == 28 and frames[:14] == alone and frames[14:] != alone


def test_a_latent_batch_makes_loops_apart(server: ComfyServer) -> None:
    graph = loop_graph("ghost.png", **TOY)
    graph["twice"] = node("RepeatLatentBatch", samples=["build", 2], amount=2)
    graph["sample"]["inputs"]["latent"] = ["twice", 0]
    frames = run(server, graph)
    assert len(frames) == 28 and frames[:14] != frames[14:]
    executed = server.run(graph | {"check": loop_check()})
    assert [
        shown["report"]["frames"] for shown in executed["outputs"]["check"]["loopanimate_check"]
    ] == [14, 14]


def test_a_second_pass_at_another_size_stays_closed(server: ComfyServer) -> None:
    """The still is encoded again; without that it would be a smear of enlarged latents."""
    graph = loop_graph("ghost.png", **TOY)
    graph["larger"] = node(
        "LatentUpscaleBy", samples=["sample", 0], upscale_method="bislerp", scale_by=1.5
    )
    again = {**graph["sample"]["inputs"], "latent": ["larger", 0], "start": 0.5, "hold_still": 0.05}
    graph["again"] = node("LoopAnimate_LoopSampler", **again)
    frames = run(server, graph | saved(["again", 0]))
    assert len(frames) == 14 and {len(frame) for frame in frames} == {96 * 96 * 3}


def test_sizes_and_crops_are_named(server: ComfyServer) -> None:
    graph = loop_graph("ghost.png", bundle="toy.safetensors", side=128)
    notes = server.run(graph)["outputs"]["build"]["loopanimate_notes"]
    assert [note["key"] for note in notes] == ["untrained_size"]
    assert notes[0]["size"] == "128 x 128" and "64 x 64" in notes[0]["trained"]
    assert "not a size that this model was trained on" in server.log()


def test_a_motion_that_the_model_does_not_read_is_named(server: ComfyServer) -> None:
    graph = loop_graph("ghost.png", **TOY)
    for motion, keys in (("medium", []), ("large", ["no_motion_dial"])):
        graph["build"]["inputs"]["motion"] = motion
        notes = server.run(graph)["outputs"]["build"]["loopanimate_notes"]
        assert [note["key"] for note in notes] == keys


def test_loop_check_knows_how_the_loop_was_sampled(server: ComfyServer) -> None:
    graph = loop_graph("ghost.png", closing="shift", start=0.5, **TOY)
    graph["check"] = loop_check()
    (shown,) = server.run(graph)["outputs"]["check"]["loopanimate_check"]
    assert shown["sampled"] == {"closing": "shift", "start": 0.5}


def test_prompt_without_picture_raises_one_sentence(server: ComfyServer) -> None:
    graph = ksampler_graph("ghost.png", **TOY)
    graph["sample"]["inputs"]["negative"] = ["negative", 0]
    with pytest.raises(PromptError, match="must go through Build Loop Conditions"):
        server.run(graph)


def test_empty_mask_raises_one_sentence(server: ComfyServer) -> None:
    graph = loop_graph("ghost.png", **TOY)
    graph["mask"] = node("SolidMask", value=0.0, width=64, height=64)
    graph["build"]["inputs"]["mask"] = ["mask", 0]
    with pytest.raises(PromptError, match="the mask is empty"):
        server.run(graph)


def test_a_mask_changes_the_loop(server: ComfyServer) -> None:
    graph = loop_graph("ghost.png", **TOY)
    without = run(server, graph)
    graph["small"] = node("SolidMask", value=1.0, width=32, height=32)
    graph["large"] = node("SolidMask", value=0.0, width=64, height=64)
    graph["mask"] = node(
        "MaskComposite", destination=["large", 0], source=["small", 0], x=0, y=0, operation="add"
    )
    graph["build"]["inputs"]["mask"] = ["mask", 0]
    assert run(server, graph) != without


# ------------------------------------------------------------------------------------------- LoRA
def test_lora_patches_and_unpatches(
    server: ComfyServer, stock: list[bytes], toy_bundle_path: Path
) -> None:
    """Kohya's names work, and removing the LoRA restores the original loop."""
    folder = server.base_dir / "models/loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(kohya_lora(toy_bundle_path), str(folder / "toy_lora.safetensors"))
    lora = node(
        "LoraLoader",
        model=["load", 0],
        clip=["load", 1],
        lora_name="toy_lora.safetensors",
        strength_model=1.0,
        strength_clip=1.0,
    )
    logged = len(server.log())
    assert (
        run(server, ksampler_graph("ghost.png", model=["lora", 0], **TOY) | {"lora": lora}) != stock
    )
    assert "lora key not loaded" not in server.log()[logged:]
    entry = server.run(ksampler_graph("ghost.png", **TOY))
    cached = cached_nodes(entry)
    assert "load" in cached and "sample" not in cached  # the same model, sampled again
    assert pictures(server, entry) == stock


def cached_nodes(entry: dict[str, Any]) -> list[str]:
    """The nodes whose results came from ComfyUI's cache."""
    messages = dict(entry["status"]["messages"])
    return messages["execution_cached"]["nodes"]


def kohya_lora(bundle: Path) -> dict[str, torch.Tensor]:
    """A LoRA of rank 1 on attention, a motion module and a convolution."""
    generator = torch.Generator().manual_seed(0)
    weights = load_file(str(bundle))
    lora = {}
    for name in (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v",
        "up_blocks.1.motion_modules.0.transformer_blocks.0.attn1.to_q",
        "mid_block.resnets.0.conv1",
    ):
        rows, *columns = weights[f"unet.{name}.weight"].shape
        key = "lora_unet_" + name.replace(".", "_")
        lora[f"{key}.lora_up.weight"] = torch.randn(
            rows, 1, *[1] * (len(columns) - 1), generator=generator
        )
        lora[f"{key}.lora_down.weight"] = torch.randn(1, *columns, generator=generator)
        lora[f"{key}.alpha"] = torch.tensor(1.0)
    return lora


# ------------------------------------------------------------------------- previews and interrupts
def heard(server: ComfyServer, graph: Graph) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The stock previews and the loop previews of a run."""
    with Listener(server.port) as events:
        messages = events.until_done(server.prompt(graph, client_id=events.client_id))
    loops = [
        m["data"] for m in messages if isinstance(m, dict) and m["type"] == "loopanimate.preview"
    ]
    return [m for m in messages if isinstance(m, bytes)], loops


def test_previews_of_a_stock_sampler(server: ComfyServer) -> None:
    """At each step, ComfyUI's preview of the first frame and our preview of all frames."""
    stills, loops = heard(server, ksampler_graph("ghost.png", seed=7, steps=3, **TOY))
    assert len(stills) == 3
    assert Image.open(io.BytesIO(stills[0][8:])).format == "JPEG"
    assert loops


def test_animated_preview(server: ComfyServer) -> None:
    stills, loops = heard(server, loop_graph("ghost.png", seed=8, steps=3, **TOY))
    assert not stills
    assert [loop["step"] for loop in (loops[0], loops[-1])] == [1, 3]
    preview = loops[-1]
    assert {name: preview[name] for name in ("node", "frames", "columns", "fps", "steps")} == {
        "node": "sample",
        "frames": 14,
        "columns": 4,
        "fps": 8.0,
        "steps": 3,
    }
    assert preview["prompt_id"]
    kind, _, content = preview["sheet"].partition(",")
    assert kind == "data:image/jpeg;base64"
    sheet = Image.open(io.BytesIO(base64.b64decode(content)))
    assert sheet.size == (4 * preview["width"], 4 * preview["height"])


@pytest.mark.parametrize("graph_of", [loop_graph, ksampler_graph])
def test_interrupt_stops_before_the_end(server: ComfyServer, graph_of: Any) -> None:
    graph = graph_of("ghost.png", seed=9, steps=500, sampler="euler", **TOY)
    with Listener(server.port) as events:
        prompt_id = server.prompt(graph, client_id=events.client_id)
        steps_done = 0
        for message in events.messages():
            if isinstance(message, bytes):
                continue
            if message["type"] == "progress" and message["data"]["node"] == "sample":
                if not steps_done:
                    server.post("/interrupt", {})
                steps_done = message["data"]["value"]
            if message["type"] == "execution_interrupted":
                break
    assert server.wait(prompt_id)["status"]["status_str"] == "error"
    assert 1 <= steps_done < 500


# ---------------------------------------------------------------------- caches, models, determinism
def test_cached_results_are_not_modified(server: ComfyServer, stock: list[bytes]) -> None:
    """Sampling three times does not change the still in the latent."""
    still = saved(["build", 2], "still")
    graph = ksampler_graph("ghost.png", seed=3, **TOY)
    graph |= {"still_decode": still["decode"], "still_save": still["save"]}
    graph["still_save"]["inputs"]["images"] = ["still_decode", 0]
    before = pictures(server, server.run(graph), "still_save")
    for seed in (4, 5):
        graph["sample"]["inputs"]["seed"] = seed
        entry = server.run(graph)
    graph["still_decode"]["class_type"] = "VAEDecodeTiled"  # decodes the cached latent again
    graph["still_decode"]["inputs"] |= {
        "tile_size": 512,
        "overlap": 0,
        "temporal_size": 64,
        "temporal_overlap": 8,
    }
    graph["sample"]["inputs"]["seed"] = 1
    entry = server.run(graph)
    assert {"load", "build"} <= set(cached_nodes(entry))
    assert len(set(before)) == 1
    assert len(set(pictures(server, entry, "still_save"))) == 1
    assert pictures(server, entry) == stock


def test_two_models_in_one_graph(server: ComfyServer, stock: list[bytes]) -> None:
    """Two bundles of different sizes in one graph give the same loops as alone."""
    first = ksampler_graph("ghost.png", **TOY)
    second = loop_graph("ghost.png", steps=1, side=48)
    alone = run(server, second)
    both = first | {f"other_{name}": retarget(entry) for name, entry in second.items()}
    entry = server.run(both)
    assert pictures(server, entry) == stock
    assert pictures(server, entry, "other_save") == alone


def retarget(entry: dict[str, Any]) -> dict[str, Any]:
    """The node with its links changed to the nodes named other_…."""
    inputs = {
        name: [f"other_{value[0]}", value[1]] if isinstance(value, list) else value
        for name, value in entry["inputs"].items()
    }
    return {**entry, "inputs": inputs}


def test_the_same_seed_twice(server: ComfyServer) -> None:
    graph = loop_graph("ghost.png", seed=11, steps=2, sampler="euler_ancestral", **TOY)
    first = run(server, graph)
    server.post("/free", {"unload_models": True, "free_memory": True})
    # The queue frees memory before or after a prompt, so either run may be without a cache.
    entries = [server.run(graph), server.run(graph)]
    assert any("sample" not in cached_nodes(entry) for entry in entries)
    assert all(pictures(server, entry) == first for entry in entries)
    graph["sample"]["inputs"]["seed"] = 12
    assert run(server, graph) != first


def test_after_a_restart_beside_a_broken_diffusers(
    server: ComfyServer, comfyui: Path, stock: list[bytes], toy_bundle_path: Path, tmp_path: Path
) -> None:
    """A new server makes the same loop, also if diffusers cannot be imported."""
    broken = tmp_path / "broken"
    (broken / "diffusers").mkdir(parents=True)
    message = "huggingface-hub>=0.34,<1.0 is required for a normal functioning of this module"
    (broken / "diffusers/__init__.py").write_text(f"raise ImportError({message!r})\n")
    base_dir = tmp_path / "base"
    models = tmp_path / "elsewhere"
    models.mkdir()
    shutil.copy(toy_bundle_path, models / "toy.safetensors")
    extra = tmp_path / "extra_model_paths.yaml"
    extra.write_text(json.dumps({"mine": {"base_path": str(tmp_path), "loopanimate": "elsewhere"}}))
    again = ComfyServer.start(
        comfyui,
        base_dir,
        extra_args=["--extra-model-paths-config", str(extra)],
        env={"PYTHONPATH": str(broken)},
    )
    try:
        give_picture(again)
        assert run(again, ksampler_graph("ghost.png", **TOY)) == stock
    finally:
        again.stop()


# ------------------------------------------------------------------------------------------ loading
def bundles_offered(server: ComfyServer) -> list[str]:
    info = server.get("/object_info/LoopAnimate_LoadLoopAnimate")["LoopAnimate_LoadLoopAnimate"]
    kind, options = info["input"]["required"]["bundle"]
    return options["options"] if kind == "COMBO" else kind


def test_mini_bundle_is_listed_first(server: ComfyServer) -> None:
    (server.base_dir / "models/loopanimate/readme.txt").write_text("no bundle")
    assert bundles_offered(server) == ["mini (bundled)", "toy.safetensors", "parts"]


@pytest.mark.parametrize(
    ("bundle", "parts", "sentence"),
    [
        (
            "parts",
            {},
            r"needs 3 more of its files. Choose checkpoint: .*motion_module: .*animatediff.*clip_vision: ",
        ),
        ("gone.safetensors", {}, "gone.safetensors"),
        ("not_a_bundle.safetensors", {}, "is a safetensors file but not a LoopAnimate bundle"),
    ],
)
def test_loading_errors_are_one_sentence(
    server: ComfyServer, bundle: str, parts: dict[str, str], sentence: str
) -> None:
    save_file(
        {"x": torch.zeros(1)},
        str(server.base_dir / "models/loopanimate/not_a_bundle.safetensors"),
    )
    graph = loop_graph("ghost.png", **TOY) | {"load": load_node(bundle, **parts)}
    try:
        with pytest.raises(PromptError, match=sentence):
            server.run(graph)
    finally:
        (server.base_dir / "models/loopanimate/not_a_bundle.safetensors").unlink()
