"""Updates the templates after the bundled model was replaced, or after a node was given another setting.

    make fit-workflows

writes the model's frames, fps and sampling settings into every workflow that uses it, and into the API copy. Settings that
nodes have gained since a template was saved get their defaults.
"""

from __future__ import annotations

import json
from typing import Any

from flat_workflow import definitions
from test_workflows import (
    API,
    BLUEPRINT,
    SCHEMAS,
    STOCK,
    TEMPLATES,
    load,
    widget_names,
    widgets,
)

from loopanimate_core.bundle import BundleConfig, bundle_info, mini_bundle_path
from loopanimate_core.files import atomic_write

MIN_DRAFT_STEPS = 4


def values_for(node: dict[str, Any], config: BundleConfig) -> dict[str, Any]:
    """The bundled model's values for a node: widget name → value."""
    # The page writes 8.0 as 8.
    return {name: int(v) if v == int(v) else v for name, v in _wanted(node, config).items()}


def _wanted(node: dict[str, Any], config: BundleConfig) -> dict[str, float]:
    own, kind = config.defaults, node["type"]
    if kind == "LoopAnimate_BuildLoopConditions":
        return {"frames": own.frames}
    if kind in ("LoopAnimate_LoopCheck", "LoopAnimate_SaveLoop"):
        return {"fps": own.fps}
    if kind == "LoopAnimate_DetailTransfer":
        return {"frames_fps": own.fps}
    if kind == "KSampler":
        return {"steps": own.steps, "cfg": own.guidance}
    if kind == "LoopAnimate_LoopSampler" and widgets(node)["steps"]:  # 0 means the model's default
        return {"steps": max(MIN_DRAFT_STEPS, own.steps // 3)}
    return {}


def append_defaults(node: dict[str, Any]) -> None:
    """Give a saved node the settings that were added to its kind: they are always the last ones."""
    values = node.setdefault("widgets_values", [])
    defaults = {e["id"]: e.get("default") for e in SCHEMAS[node["type"]]["inputs"]}
    defaults["control_after_generate"] = "fixed"
    names = widget_names(node)
    values += [defaults[name] for name in names[len(values) :]]
    if not values:
        del node["widgets_values"]


def fit(graph: dict[str, Any], config: BundleConfig) -> None:
    """Update a workflow in the page's format; workflows that load parts are not changed."""
    subgraphs = definitions(graph)
    nodes = [node for node in graph["nodes"] if node["type"] not in subgraphs]
    nodes += [node for subgraph in subgraphs.values() for node in subgraph["nodes"]]
    for node in nodes:
        if node["type"] not in STOCK:
            append_defaults(node)
    (loader,) = [node for node in nodes if node["type"] == "LoopAnimate_LoadLoopAnimate"]
    if widgets(loader)["bundle"] == "parts":
        return
    for node in nodes:
        for name, value in values_for(node, config).items():
            node["widgets_values"][widget_names(node).index(name)] = value


def fit_api(graph: dict[str, Any], config: BundleConfig) -> None:
    """The same in API format."""
    for node in graph.values():
        plain = {"type": node["class_type"], "widgets_values": []}
        if plain["type"] != "LoopAnimate_LoopSampler":
            for name, value in values_for(plain, config).items():
                if not isinstance(node["inputs"][name], list):  # a link
                    node["inputs"][name] = value


def main() -> None:
    config = bundle_info(mini_bundle_path()).config
    for path in [*TEMPLATES, BLUEPRINT, API]:
        graph = load(path)
        (fit_api if path == API else fit)(graph, config)
        text = json.dumps(graph, indent=2 if path == API else 1, ensure_ascii=False)
        with atomic_write(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
