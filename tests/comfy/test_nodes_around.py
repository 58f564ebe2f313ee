"""The nodes around the model, on a real server: pictures, masks, loop check, files."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_server import ComfyServer, PromptError
from PIL import Image

from loopanimate_core.video import read_metadata, read_video, write_video
from loopanimate_core.video.formats import FORMATS

GOLDEN = Path(__file__).resolve().parent.parent / "nodes/schemas.json"
FRAMES = 12
WORKFLOW = {"nodes": [{"type": "LoopAnimate_SaveLoop"}], "extra": {"note": "{ungerade „Klammer“"}}
CHECK = {"fps": 8.0, "jump_ratio": 1.6, "frozen_change": 3.0, "on_fail": "warn"}
SAVE = {"fps": 10.0, "quality": -1, "preset": "as it is", "repeats": 1}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def ours(name: str, **inputs: Any) -> dict[str, Any]:
    return node(f"LoopAnimate_{name}", **inputs)


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    """A disc that goes round once, `[12, 64, 64, 3]`."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    angles = [2 * math.pi * index / FRAMES for index in range(FRAMES)]
    discs = [
        (12 - (x - 32 - 16 * math.cos(a)).hypot(y - 32 - 16 * math.sin(a))).clamp(0, 1)
        for a in angles
    ]
    return torch.stack(discs)[..., None] * torch.tensor([0.6, 0.3, -0.1]) + 0.3


@pytest.fixture(scope="module")
def loaded(comfy: ComfyServer, clip: torch.Tensor) -> dict[str, Any]:
    """A node that gives the clip: Load Image reads every frame of an animated PNG."""
    write_video(clip, comfy.base_dir / "input/clip.png", fps=8, format="apng")
    return node("LoadImage", image="clip.png")


def test_schemas_are_what_the_stand_in_says(comfy: ComfyServer) -> None:
    """So the results of tests/nodes, which use a stand-in, hold for ComfyUI."""
    for name, golden in json.loads(GOLDEN.read_text(encoding="utf-8")).items():
        info = comfy.get(f"/object_info/{name}")[name]
        assert (info["display_name"], info["category"]) == (golden["display_name"], "LoopAnimate")
        order = [*info["input_order"]["required"], *info["input_order"].get("optional", [])]
        assert order == [entry["id"] for entry in golden["inputs"]], name
        assert info["output_name"] == [entry["display_name"] for entry in golden["outputs"]]
        for entry in golden["inputs"]:
            given = info["input"]["optional" if entry["optional"] else "required"][entry["id"]]
            assert given[0] == entry["type"], (name, entry["id"])
            for key in ("default", "min", "max", "step", "tooltip", "forceInput"):
                assert given[1].get(key) == entry.get(key), (name, entry["id"], key)


def test_loop_check_shows_verdict_and_frames(
    comfy: ComfyServer, loaded: dict[str, Any], clip: torch.Tensor
) -> None:
    graph = {
        "1": loaded,
        "2": ours(
            "LoadLoopAnimate",
            bundle="mini (bundled)",
            checkpoint="none",
            image_unet="none",
            motion_module="none",
            clip_vision="none",
            dtype="auto",
        ),
        "3": ours("LoopCheck", images=["1", 0], reference=["1", 0], clip_vision=["2", 2], **CHECK),
    }
    (shown,) = comfy.run(graph)["outputs"]["3"]["loopanimate_check"]
    assert shown["passed"] and shown["frames"] == FRAMES and shown["fps"] == 8
    report = shown["report"]
    assert report["mse_f0"] < 0.01 and 0.5 < report["clip_i"] <= 1 and report["loop_c"] is not None
    sheet = Image.open(io.BytesIO(comfy.view(shown["sheet"])))
    rows = math.ceil(FRAMES / shown["columns"])
    assert sheet.size == (shown["columns"] * shown["width"], rows * shown["height"])
    assert Image.open(io.BytesIO(comfy.view(shown["chart"]))).size == (640, 320)


def test_loop_check_stops_a_bad_loop_with_its_reason(
    comfy: ComfyServer, loaded: dict[str, Any]
) -> None:
    graph = {
        "1": loaded,
        "2": node("ImageFromBatch", image=["1", 0], batch_index=0, length=7),
        "3": ours("LoopCheck", images=["2", 0], **CHECK | {"on_fail": "stop"}),
    }
    with pytest.raises(
        PromptError, match=r"LoopCheck: Not seamless, 7 frames: .*jumps at the seam"
    ):
        comfy.run(graph)


def test_every_format_is_saved_with_its_workflow(
    comfy: ComfyServer, loaded: dict[str, Any], clip: torch.Tensor
) -> None:
    graph: dict[str, Any] = {"1": loaded}
    for name in FORMATS:
        graph[name] = ours(
            "SaveLoop",
            images=["1", 0],
            filename_prefix=f"all/{name}",
            format=name,
            picture_name="disc",
            **SAVE,
        )
    outputs = comfy.run(graph, workflow=WORKFLOW)["outputs"]
    for name in FORMATS:
        (saved,) = outputs[name]["loopanimate_saved"]
        path = comfy.base_dir / "output" / saved["subfolder"] / saved["filename"]
        assert path.stem == f"{name}_disc_00001_"
        frames, fps = read_video(path)
        assert frames.shape == clip.shape and fps == 10
        tags = read_metadata(path)
        assert json.loads(tags["workflow"]) == WORKFLOW
        assert json.loads(tags["prompt"])["1"]["class_type"] == "LoadImage"
        assert outputs[name]["animated"] == [True]
        assert comfy.view(outputs[name]["images"][0])


def test_a_bundled_picture_goes_through_mask_and_name_to_a_file(comfy: ComfyServer) -> None:
    """Nothing has to be copied into `input` before."""
    graph = {
        "1": ours("LoadPictureFromFolder", folder="LoopAnimate pictures", index=1),
        "2": ours(
            "SalientMask",
            image=["1", 0],
            method="auto",
            threshold=0.5,
            grow_px=0,
            onnx_model="none",
            alpha=["1", 1],
        ),
        "3": ours("ChainLoops", loop_1=["1", 0], loop_2=["2", 1]),
        "4": ours("LoopForInterpolation", images=["3", 0]),
        "5": ours("LoopAfterInterpolation", images=["4", 0]),
        "6": ours(
            "SaveLoop",
            images=["5", 0],
            filename_prefix="one/%picture_name%",
            format="webp",
            picture_name=["1", 2],
            **SAVE | {"preset": "sticker"},
        ),
    }
    entry = comfy.run(graph)
    (saved,) = entry["outputs"]["6"]["loopanimate_saved"]
    assert saved["filename"] == "ghost_00001_.webp"
    frames, _ = read_video(comfy.base_dir / "output/one" / saved["filename"])
    assert frames.shape == (2, 512, 512, 3)
    darkened = (frames[0] - frames[1]).abs().mean(-1) > 0.1
    assert 0.3 < float(darkened.float().mean()) < 0.95  # the surroundings, not the ghost


def test_the_end_of_a_folder_and_a_changed_file(comfy: ComfyServer) -> None:
    folder = comfy.base_dir / "input/run"
    folder.mkdir()
    Image.new("RGB", (32, 32), "red").save(folder / "only.png")

    def graph(index: int) -> dict[str, Any]:
        return {
            "1": ours("LoadPictureFromFolder", folder="input/run", index=index),
            "2": node("PreviewImage", images=["1", 0]),
        }

    def shown() -> tuple[int, ...]:
        outputs = comfy.run(graph(0))["outputs"]
        pixel = Image.open(io.BytesIO(comfy.view(outputs["2"]["images"][0]))).getpixel((5, 5))
        assert isinstance(pixel, tuple)
        return pixel

    assert shown() == (255, 0, 0)
    Image.new("RGB", (32, 32), "blue").save(folder / "only.png")
    assert shown() == (0, 0, 255)
    with pytest.raises(PromptError, match="'input/run' has pictures 0 to 0"):
        comfy.run(graph(1))
    with pytest.raises(PromptError, match=r"is outside|Value not in list"):
        comfy.run({**graph(0), "1": ours("LoadPictureFromFolder", folder="input/../..", index=0)})


def test_labels_are_served_in_four_languages(comfy: ComfyServer) -> None:
    labels = comfy.get("/i18n")
    for language in ("en", "zh", "ja", "fr"):
        assert labels[language]["nodeDefs"]["LoopAnimate_LoopCheck"]["display_name"]
