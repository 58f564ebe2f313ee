"""The templates match the nodes' schemas and run without changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flat_workflow import INPUTS, definitions, flat
from PIL import Image

from loopanimate_core.batch import read_workflow
from loopanimate_core.bundle import bundle_info, mini_bundle_path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "workflows"
BLUEPRINT = ROOT / "subgraphs/Picture to Loop.json"
TEMPLATES = sorted(FOLDER.glob("*.json"))
API = FOLDER / "api/loopanimate_basic_api.json"
SCHEMAS: dict[str, Any] = json.loads((ROOT / "tests/nodes/schemas.json").read_text())

# ComfyUI's own nodes in the templates: widget names, as the page stores their values.
STOCK = {
    "CLIPTextEncode": ["text"],
    "VAEDecode": [],
    "LoadImage": ["image", "upload"],
    "LatentUpscaleBy": ["upscale_method", "scale_by"],
    "PreviewImage": [],
    "MarkdownNote": ["text"],
    "InvertMask": [],
    "EmptyImage": ["width", "height", "batch_size", "color"],
    "ImageCompositeMasked": ["x", "y", "resize_source"],
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
    """A workflow as saved."""
    return json.loads(path.read_text(encoding="utf-8"))


def load_flat(path: Path) -> dict[str, Any]:
    """A template with the nodes of its subgraphs in their place."""
    return flat(load(path))


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


def test_expected_templates_exist() -> None:
    uses = {
        "picture to loop",
        "wallpapers and sticker",
        "folder of pictures",
        "long loop of three motions",
        "KSampler and LoRA",
        "Stable Diffusion parts",
        "seed hunt",
        "second pass",
        "picture to loop in one node",
    }
    assert {path.stem for path in TEMPLATES} == {f"LoopAnimate {use}" for use in uses}
    # If two of these folders exist, ComfyUI cannot open the files of one of them.
    for name in ("example_workflows", "example", "examples", "workflow"):
        assert not (ROOT / name).exists()


@each_template
def test_node_types_and_widget_values_are_valid(path: Path) -> None:
    graph = load_flat(path)
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
def test_links_match_inputs_and_outputs(path: Path) -> None:
    graph = load_flat(path)
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
def test_required_inputs_are_linked(path: Path) -> None:
    for node in load_flat(path)["nodes"]:
        linked = {entry["name"] for entry in node.get("inputs", []) if entry.get("link")}
        for entry in SCHEMAS.get(node["type"], {"inputs": []})["inputs"]:
            if not (is_widget(entry) or entry["optional"]):
                assert entry["id"] in linked, (node["type"], entry["id"])


@each_template
def test_templates_use_the_settings_of_the_mini(path: Path) -> None:
    config = bundle_info(mini_bundle_path()).config
    nodes = load_flat(path)["nodes"]
    (model,) = [node for node in nodes if node["type"] == "LoopAnimate_LoadLoopAnimate"]
    if widgets(model)["bundle"] == "parts":
        return
    for node in nodes:
        values = widgets(node)
        if node["type"] == "LoopAnimate_BuildLoopConditions":
            assert (values["width"], values["height"]) == (0, 0)  # nearest to the picture
            assert values["frames"] == config.defaults.frames
        if node["type"] in ("LoopAnimate_LoopCheck", "LoopAnimate_SaveLoop"):
            assert values["fps"] == config.defaults.fps
        if node["type"] == "LoopAnimate_DetailTransfer":
            assert values["frames_fps"] == config.defaults.fps
        if node["type"] == "KSampler":
            own = config.defaults
            assert (values["steps"], values["cfg"]) == (own.steps, own.guidance)


def test_wallpapers_are_drawn_at_the_screens_size_and_streamed() -> None:
    graph = load_flat(FOLDER / "LoopAnimate wallpapers and sticker.json")
    nodes = {node["id"]: node for node in graph["nodes"]}
    sizes = set()
    for _, source, _, target, slot, _ in graph["links"]:
        if nodes[target]["inputs"][slot]["name"] == "loop":
            values = widgets(nodes[source])
            assert values["deliver"] == "stream"
            assert widgets(nodes[target])["preset"] == "as it is"
            custom = values["size"] == "custom"
            sizes.add((values["width"], values["height"]) if custom else values["size"])
    assert sizes == {"4k", (1080, 1920)}


def made_from(graph: dict[str, Any], target: int, name: str) -> tuple[int, int]:
    """The node and the output that an input is connected to."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    for _, source, output, end, slot, _ in graph["links"]:
        if end == target and nodes[end]["inputs"][slot]["name"] == name:
            return source, output
    raise AssertionError(f"node {target} has nothing connected to {name}")


@each_template
def test_frames_are_made_of_the_still_that_they_move(path: Path) -> None:
    """Detail Transfer takes frame 0 for the still, cropped to the shape of the frames."""
    graph = load_flat(path)
    nodes = {node["id"]: node for node in graph["nodes"]}
    for transfer in (n for n in nodes.values() if n["type"] == "LoopAnimate_DetailTransfer"):
        at = made_from(graph, transfer["id"], "frames")[0]
        while nodes[at]["type"] != "LoopAnimate_BuildLoopConditions":
            (name,) = {e["name"] for e in nodes[at]["inputs"]} & {
                "images",
                "samples",
                "latent",
                "latent_image",
            }
            at = made_from(graph, at, name)[0]
        shown, object_in_it = 3, 4  # outputs of Build Loop Conditions, which may have cropped them
        assert made_from(graph, transfer["id"], "still") == (at, shown)
        assert made_from(graph, transfer["id"], "mask") == (at, object_in_it)


@each_template
def test_templates_have_a_note_and_a_thumbnail(path: Path) -> None:
    graph = load(path)
    assert any(node["type"] == "MarkdownNote" for node in graph["nodes"])
    assert len(graph["groups"]) >= 3
    thumbnail = path.with_suffix(".jpg")
    assert thumbnail.stat().st_size < 400_000
    with Image.open(thumbnail) as image:
        # Pages ask for .jpg, and show what is in the file: workflows/README.md.
        assert image.format in ("JPEG", "WEBP")
        assert min(image.size) >= 300
        assert image.format == "JPEG" or getattr(image, "n_frames", 1) > 1


def test_the_second_pass_starts_from_the_first() -> None:
    graph = load_flat(FOLDER / "LoopAnimate second pass.json")
    nodes = {node["id"]: node for node in graph["nodes"]}
    starts = {}
    for node in nodes.values():
        if node["type"] == "LoopAnimate_LoopSampler":
            starts[nodes[made_from(graph, node["id"], "latent")[0]]["type"]] = widgets(node)[
                "start"
            ]
    assert starts == {"LoopAnimate_BuildLoopConditions": 0, "LatentUpscaleBy": 0.5}


def test_the_seed_hunt_samples_the_chosen_seed() -> None:
    graph = load_flat(FOLDER / "LoopAnimate seed hunt.json")
    ids = {node["type"]: node["id"] for node in graph["nodes"]}
    hunt, sampler = ids["LoopAnimate_SeedHunt"], ids["LoopAnimate_LoopSampler"]
    assert made_from(graph, sampler, "seed") == (hunt, 2)
    for name in ("model", "positive", "negative", "latent"):  # drafts of the very same loop
        assert made_from(graph, sampler, name) == made_from(graph, hunt, name)


@pytest.mark.parametrize("use", ["picture to loop", "seed hunt"])
def test_templates_take_ones_own_picture(use: str) -> None:
    graph = load_flat(FOLDER / f"LoopAnimate {use}.json")
    (loader,) = (node for node in graph["nodes"] if node["type"] == "LoadImage")
    assert widgets(loader)["image"] == "loopanimate_ghost.png"  # nodes/sample_picture.py


SCREEN_PX = (1600, 1000)
BESIDE_PX = (70, 80)  # the page's side bar and its top bar


@each_template
def test_the_result_is_in_view_when_a_template_opens(path: Path) -> None:
    graph = load(path)
    view = graph["extra"]["ds"]
    assert view["scale"] >= 0.7, "smaller words cannot be read"
    for node in graph["nodes"]:
        for side in (0, 1):
            start = (node["pos"][side] + view["offset"][side]) * view["scale"]
            end = start + node["size"][side] * view["scale"]
            assert start > 60
            assert end + BESIDE_PX[side] < SCREEN_PX[side], (node["type"], node.get("title"))


def test_no_two_nodes_of_a_template_lie_on_each_other() -> None:
    for path in TEMPLATES:
        graph = load(path)
        for nodes in [graph["nodes"], *(d["nodes"] for d in definitions(graph).values())]:
            boxes = [(*n["pos"], *n["size"], n["type"]) for n in nodes]
            for k, (left, top, width, height, kind) in enumerate(boxes):
                for x, y, wide, high, other in boxes[k + 1 :]:
                    beside = left + width <= x or x + wide <= left
                    assert beside or top + height < y or y + high < top, (path.stem, kind, other)


def test_one_node_makes_what_the_basic_template_makes() -> None:
    """The same nodes with the same settings, connected in the same way."""

    def shape(graph: dict[str, Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
        kinds = {node["id"]: node["type"] for node in graph["nodes"]}
        told = sorted(
            f"{node['type']} {node['widgets_values']}"
            for node in graph["nodes"]
            if node["type"] != "MarkdownNote" and "widgets_values" in node
        )
        wires = sorted((kinds[a], b, kinds[c], d) for _, a, b, c, d, _ in graph["links"])
        return told, wires

    one = load_flat(FOLDER / "LoopAnimate picture to loop in one node.json")
    assert shape(one) == shape(load(FOLDER / "LoopAnimate picture to loop.json"))


def test_the_published_subgraph_is_the_one_of_the_template() -> None:
    """ComfyUI's page takes a file with one subgraph node and nothing else."""
    published = load(BLUEPRINT)
    (node,) = published["nodes"]
    assert published["links"] == []
    assert definitions(published) == definitions(
        load(FOLDER / "LoopAnimate picture to loop in one node.json")
    )
    subgraph = definitions(published)[node["type"]]
    assert subgraph["name"] == BLUEPRINT.stem
    assert [e["name"] for e in node["inputs"]] == [e["name"] for e in subgraph["inputs"]]


@pytest.mark.parametrize("path", [*TEMPLATES, BLUEPRINT], ids=lambda path: path.stem)
def test_subgraphs_are_wired_on_both_sides(path: Path) -> None:
    for subgraph in definitions(load(path)).values():
        nodes = {node["id"]: node for node in subgraph["nodes"]}
        for link in subgraph["links"]:
            if link["target_id"] in nodes:
                entry = nodes[link["target_id"]]["inputs"][link["target_slot"]]
                assert entry["link"] == link["id"]
                assert entry["type"] == link["type"]
            if link["origin_id"] in nodes:
                output = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
                assert link["id"] in output["links"]
        for number, entry in enumerate(subgraph["inputs"]):
            ours = [ln["id"] for ln in subgraph["links"] if ln["origin_id"] == INPUTS]
            assert entry["linkIds"] and set(entry["linkIds"]) <= set(ours), number


def test_api_copy_equals_the_basic_template() -> None:
    """But for the node that loads the picture: the one of a folder knows the picture's name."""
    graph, basic = load(API), load_flat(FOLDER / "LoopAnimate picture to loop.json")
    drawn = {str(n["id"]): n for n in basic["nodes"] if n["type"] != "MarkdownNote"}
    kinds = {key: node["type"] for key, node in drawn.items()}
    (picture,) = (key for key, kind in kinds.items() if kind == "LoadImage")
    kinds[picture] = "LoopAnimate_LoadPictureFromFolder"
    assert {key: node["class_type"] for key, node in graph.items()} == kinds
    for key, node in graph.items():
        linked = {name for name, value in node["inputs"].items() if isinstance(value, list)}
        drawn_links = {e["name"] for e in drawn[key]["inputs"] if e.get("link")}
        assert linked - {"picture_name"} == drawn_links
        if key == picture:
            continue
        for name, value in widgets(drawn[key]).items():
            if name != "control_after_generate" and name not in linked:
                assert node["inputs"][name] == value
    workflow = read_workflow(API)
    assert workflow.on_white
    assert workflow.saved_file("tom", 1) is not None
