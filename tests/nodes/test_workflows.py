"""The templates fit the nodes' schemas and run with one click."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from loopanimate_core.batch import read_workflow
from loopanimate_core.bundle import bundle_info, mini_bundle_path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "workflows"
TEMPLATES = sorted(FOLDER.glob("*.json"))
API = FOLDER / "api/loopanimate_basic_api.json"
SCHEMAS: dict[str, Any] = json.loads((ROOT / "tests/nodes/schemas.json").read_text())

# ComfyUI's own nodes in the templates: widget names, as the page stores their values.
STOCK = {
    "CLIPTextEncode": ["text"],
    "VAEDecode": [],
    "PreviewImage": [],
    "MarkdownNote": ["text"],
    "LoraLoader": ["lora_name", "strength_model", "strength_clip"],
    "KSampler": [
        "seed",
        "control_after_generate",
        "steps",
        "cfg",
        "sampler_name",
        "scheduler",
        "denoise",
    ],
}
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
FILES = {"bundle", "checkpoint", "image_unet", "motion_module", "clip_vision", "onnx_model"}
MUTED = 2

Node = dict[str, Any]

each_template = pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def is_widget(entry: dict[str, Any]) -> bool:
    return entry["type"] in WIDGET_TYPES and not entry.get("forceInput")


def widget_names(node: Node) -> list[str]:
    if node["type"] in STOCK:
        return STOCK[node["type"]]
    names = []
    for entry in filter(is_widget, SCHEMAS[node["type"]]["inputs"]):
        names.append(entry["id"])
        if entry.get("control_after_generate"):
            names.append("control_after_generate")
    return names


def widgets(node: Node) -> dict[str, Any]:
    return dict(zip(widget_names(node), node.get("widgets_values", []), strict=True))


def test_every_use_has_its_template() -> None:
    uses = {
        "basic",
        "wallpaper",
        "batch_folder",
        "long_chain",
        "stock_ksampler_lora",
        "parts_sd15",
        "seed_hunt",
    }
    assert {path.stem for path in TEMPLATES} == {f"loopanimate_{use}" for use in uses}
    # With a second folder of these names, files of one of them cannot be opened.
    for name in ("example_workflows", "example", "examples", "workflow"):
        assert not (ROOT / name).exists()


@each_template
def test_nodes_are_known_and_their_values_legal(path: Path) -> None:
    graph = load(path)
    assert len({node["id"] for node in graph["nodes"]}) == len(graph["nodes"])
    for node in graph["nodes"]:
        assert node["type"] in STOCK or node["type"] in SCHEMAS, node["type"]
        values = widgets(node)  # as many as there are widgets
        if node["type"] in STOCK:
            continue
        for entry in SCHEMAS[node["type"]]["inputs"]:
            value = values.get(entry["id"])
            if not is_widget(entry) or entry["id"] in FILES:
                continue
            if entry["type"] == "COMBO":
                assert value in entry["options"], (node["type"], entry["id"], value)
            if entry["type"] in ("INT", "FLOAT"):
                assert entry["min"] <= value <= entry["max"], (node["type"], entry["id"], value)


@each_template
def test_links_join_what_they_say(path: Path) -> None:
    graph = load(path)
    nodes = {node["id"]: node for node in graph["nodes"]}
    for link_id, source, source_slot, target, target_slot, kind in graph["links"]:
        output, entry = nodes[source]["outputs"][source_slot], nodes[target]["inputs"][target_slot]
        assert link_id in output["links"]
        assert entry["link"] == link_id
        assert kind == output["type"]
        if schema := SCHEMAS.get(nodes[source]["type"]):
            assert schema["outputs"][source_slot]["type"] == kind
        if schema := SCHEMAS.get(nodes[target]["type"]):
            (wanted,) = [e for e in schema["inputs"] if e["id"] == entry["name"]]
            assert wanted["type"] == kind


@each_template
def test_nothing_that_a_node_needs_is_left_open(path: Path) -> None:
    for node in load(path)["nodes"]:
        linked = {entry["name"] for entry in node.get("inputs", []) if entry.get("link")}
        for entry in SCHEMAS.get(node["type"], {"inputs": []})["inputs"]:
            if not (is_widget(entry) or entry["optional"]):
                assert entry["id"] in linked, (node["type"], entry["id"])


@each_template
def test_the_mini_is_asked_for_what_it_was_trained_on(path: Path) -> None:
    config = bundle_info(mini_bundle_path()).config
    nodes = load(path)["nodes"]
    (model,) = [node for node in nodes if node["type"] == "LoopAnimate_LoadLoopAnimate"]
    if widgets(model)["bundle"] == "parts":
        return
    for node in nodes:
        values = widgets(node)
        if node["type"] == "LoopAnimate_BuildLoopConditions":
            size = (config.width_px, config.height_px, config.defaults.frames)
            assert (values["width"], values["height"], values["frames"]) == size
        if node["type"] in ("LoopAnimate_LoopCheck", "LoopAnimate_SaveLoop"):
            assert values["fps"] == config.defaults.fps
        if node["type"] == "KSampler":
            own = config.defaults
            assert (values["steps"], values["cfg"]) == (own.steps, own.guidance)


@each_template
def test_a_person_finds_a_note_and_a_thumbnail(path: Path) -> None:
    graph = load(path)
    assert any(node["type"] == "MarkdownNote" for node in graph["nodes"])
    assert len(graph["groups"]) >= 3
    thumbnail = path.with_suffix(".jpg")
    assert thumbnail.stat().st_size < 200_000
    with Image.open(thumbnail) as image:
        assert image.format == "JPEG"
        assert min(image.size) >= 300


def test_the_copy_for_scripts_is_the_basic_template() -> None:
    graph, basic = load(API), load(FOLDER / "loopanimate_basic.json")
    drawn = {str(n["id"]): n for n in basic["nodes"] if n["type"] != "MarkdownNote"}
    assert {key: node["class_type"] for key, node in graph.items()} == {
        key: node["type"] for key, node in drawn.items()
    }
    for key, node in graph.items():
        for name, value in widgets(drawn[key]).items():
            if name != "control_after_generate":
                assert node["inputs"][name] == value
        linked = {name for name, value in node["inputs"].items() if isinstance(value, list)}
        assert linked == {e["name"] for e in drawn[key]["inputs"] if e.get("link")}
    workflow = read_workflow(API)
    assert workflow.on_white
    assert workflow.saved_file("tom", 1) is not None
