"""Every node's schema: compatibility with saved workflows, and texts."""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Callable
from typing import Any

import extension
import pytest
from schema_golden import broken_promises, describe, read_golden

COMMAND = "make node-schemas"
NODES = (
    "LoadLoopAnimate",
    "LoadPictureFromFolder",
    "SalientMask",
    "BuildLoopConditions",
    "LoopSampler",
    "LoopCheck",
    "SaveLoop",
    "ChainLoops",
    "LoopForInterpolation",
    "LoopAfterInterpolation",
    "DetailTransfer",
    "PromptTravel",
    "SeedHunt",
    "InterpolateLoop",
)


def test_all_nodes_exist(nodes: dict[str, Any]) -> None:
    assert tuple(nodes) == NODES


def test_schemas_are_compatible_with_saved_workflows(nodes: dict[str, Any]) -> None:
    assert broken_promises(read_golden(), describe(list(nodes.values()))) == []


def test_the_golden_file_is_up_to_date(nodes: dict[str, Any]) -> None:
    assert describe(list(nodes.values())) == read_golden(), (
        f"if the change is intended, run: {COMMAND}"
    )


def toy() -> dict[str, Any]:
    """One node with two inputs and two outputs."""
    steps = {"id": "steps", "type": "INT", "optional": False, "min": 1, "max": 9}
    mode = {"id": "mode", "type": "COMBO", "optional": True, "options": ["a", "b"]}
    outputs = [{"id": "x", "type": "IMAGE"}, {"id": "y", "type": "MASK"}]
    return {"Toy": {"is_output_node": True, "inputs": [steps, mode], "outputs": outputs}}


BREAKING: dict[str, Callable[[dict[str, Any]], Any]] = {
    "node removed": lambda new: new.clear(),
    "input removed": lambda new: new["Toy"]["inputs"].pop(),
    "inputs swapped": lambda new: new["Toy"]["inputs"].reverse(),
    "input inserted": lambda new: new["Toy"]["inputs"].insert(
        0, {"id": "new", "type": "INT", "optional": True}
    ),
    "needed input added": lambda new: new["Toy"]["inputs"].append(
        {"id": "new", "type": "INT", "optional": False}
    ),
    "input renamed": lambda new: new["Toy"]["inputs"][0].update(id="number"),
    "type changed": lambda new: new["Toy"]["inputs"][0].update(type="FLOAT"),
    "input needed": lambda new: new["Toy"]["inputs"][1].update(optional=False),
    "option removed": lambda new: new["Toy"]["inputs"][1].update(options=["a"]),
    "range narrowed": lambda new: new["Toy"]["inputs"][0].update(max=8),
    "widget added": lambda new: new["Toy"]["inputs"][0].update(control_after_generate=True),
    "output removed": lambda new: new["Toy"]["outputs"].pop(),
    "outputs swapped": lambda new: new["Toy"]["outputs"].reverse(),
    "no output node": lambda new: new["Toy"].update(is_output_node=False),
}
HARMLESS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda new: None,
    "node added": lambda new: new.update(Other=new["Toy"]),
    "optional input appended": lambda new: new["Toy"]["inputs"].append(
        {"id": "new", "type": "INT", "optional": True}
    ),
    "output appended": lambda new: new["Toy"]["outputs"].append({"id": "z", "type": "INT"}),
    "option added": lambda new: new["Toy"]["inputs"][1].update(options=["c", "a", "b"]),
    "tooltip": lambda new: new["Toy"]["inputs"][0].update(tooltip="Better said."),
}


@pytest.mark.parametrize("change", BREAKING)
def test_breaking_changes_are_detected(change: str) -> None:
    new = copy.deepcopy(toy())
    BREAKING[change](new)
    assert broken_promises(toy(), new)


@pytest.mark.parametrize("change", HARMLESS)
def test_compatible_changes_are_allowed(change: str) -> None:
    new = copy.deepcopy(toy())
    HARMLESS[change](new)
    assert broken_promises(toy(), new) == []


def test_everything_has_a_description_or_tooltip(nodes: dict[str, Any]) -> None:
    for name, node in describe(list(nodes.values())).items():
        assert node["category"] == "LoopAnimate" and node["description"].endswith(".")
        for entry in [*node["inputs"], *node["outputs"]]:
            assert len(entry.get("tooltip") or "") > 15, f"{name}.{entry['id']}"
            assert entry["tooltip"].endswith("."), f"{name}.{entry['id']}"


def test_defaults_are_legal_and_combos_never_empty(nodes: dict[str, Any]) -> None:
    for name, node in describe(list(nodes.values())).items():
        for entry in node["inputs"]:
            where, default = f"{name}.{entry['id']}", entry.get("default")
            if entry["type"] == "COMBO":
                assert default in entry["options"], where
            if entry["type"] in ("INT", "FLOAT"):
                assert entry["min"] <= default <= entry["max"], where


def literal_node_ids(source: str) -> set[str]:
    """The node ids that ComfyUI-Manager's scanner finds in a file, which it reads without running it.

    It looks for classes derived from ComfyNode whose `define_schema` calls `Schema(…)` with a literal
    `node_id`.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        methods = [entry for entry in node.body if isinstance(entry, ast.FunctionDef)]
        calls = [
            call
            for method in methods
            if method.name == "define_schema" and "ComfyNode" in map(last_name, node.bases)
            for call in ast.walk(method)
            if isinstance(call, ast.Call) and last_name(call.func) == "Schema"
        ]
        found |= {
            keyword.value.value
            for call in calls
            for keyword in call.keywords
            if keyword.arg == "node_id" and isinstance(keyword.value, ast.Constant)
        }
    return found


def last_name(node: ast.expr) -> str:
    """`ComfyNode` for `io.ComfyNode` and for `ComfyNode`."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def test_node_ids_can_be_read_from_the_source(nodes: dict[str, Any]) -> None:
    """ComfyUI-Manager needs this to find the pack that a shared workflow uses."""
    sources = (extension.ROOT / "nodes").rglob("*.py")
    found = set().union(*(literal_node_ids(path.read_text(encoding="utf-8")) for path in sources))
    assert found == {f"LoopAnimate_{name}" for name in nodes}


def test_fields_that_an_older_comfyui_lacks_are_dropped(nodes: dict[str, Any]) -> None:
    schema = sys.modules[f"{extension.PACK}.nodes.schema"]
    fields = {"description": "known", "no_such_field": 1}
    assert schema.supported(**fields) == {"description": "known"}
