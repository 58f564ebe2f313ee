"""Other extensions beside this one: they are offered, and ComfyUI's own nodes are, as without it.

`COMFYUI_PACKS` names a folder whose folders are extensions; without it the tests are skipped.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from comfy_graphs import Graph, give_picture, loop_check, loop_graph, node, pictures
from comfy_server import ComfyServer, PromptError

OURS = "custom_nodes.LoopAnimate"


@pytest.fixture(scope="module")
def offers(
    comfyui: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a server with the packs offers: beside ours, and without it."""
    base = tmp_path_factory.mktemp("packs")
    names = _install(base)
    alone = ["--disable-all-custom-nodes", "--whitelist-custom-nodes", *names]
    # Ours first: what it puts into the input folder is then there in both.
    return _offer(comfyui, base, []), _offer(comfyui, base, alone)


def _install(base: Path) -> list[str]:
    """Copy the packs into a base directory; their names."""
    place = os.environ.get("COMFYUI_PACKS")
    if not place:
        pytest.skip("COMFYUI_PACKS does not name a folder with extensions")
    folders = [path for path in sorted(Path(place).expanduser().iterdir()) if path.is_dir()]
    for folder in folders:
        shutil.copytree(folder, base / "custom_nodes" / folder.name)
    return [folder.name for folder in folders]


def _offer(comfyui: Path, base: Path, arguments: list[str]) -> dict[str, Any]:
    server = ComfyServer.start(comfyui, base, extra_args=arguments)
    try:
        server.get("/object_info")  # for it ComfyUI makes folders, which are then on offer
        nodes = server.get("/object_info")
        scripts = server.get("/extensions")
    finally:
        server.stop()
    return {
        "ours": {name for name, node in nodes.items() if node["python_module"] == OURS},
        "nodes": {name: node for name, node in nodes.items() if node["python_module"] != OURS},
        "scripts": {script for script in scripts if "LoopAnimate" not in script},
    }


def test_all_other_nodes_are_offered_as_without_ours(
    offers: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    beside, alone = offers
    assert beside["ours"] and not alone["ours"]
    theirs = {node["python_module"] for node in alone["nodes"].values()}
    assert any(module.startswith("custom_nodes.") for module in theirs)
    assert beside["nodes"].keys() == alone["nodes"].keys()
    changed = [name for name, node in alone["nodes"].items() if beside["nodes"][name] != node]
    assert changed == []


def test_all_other_scripts_of_the_page_are_loaded(
    offers: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    beside, alone = offers
    assert beside["scripts"] == alone["scripts"]


# --------------------------------------------------------------------------------- in one prompt with ours
PICTURE = "IMAGE"
MOST_TRIED = 6  # nodes of a pack, until one works alone
Nodes = dict[str, Any]


def _settings(described: dict[str, Any]) -> dict[str, Any] | None:
    """The defaults of a node's required settings; None if one of them has none, or is a connection."""
    chosen = {}
    for name, (kind, *options) in described["input"].get("required", {}).items():
        if isinstance(kind, list):
            chosen[name] = kind[0] if kind else None
        elif options and "default" in options[0]:
            chosen[name] = options[0]["default"]
        else:
            return None
    return chosen


def _takes_one(described: dict[str, Any], kind: str) -> tuple[str, dict[str, Any]] | None:
    """The only connection that a node needs, if it is of this kind, and its settings."""
    required = described["input"].get("required", {})
    names = [name for name, entry in required.items() if entry[0] == kind]
    if len(names) != 1 or described["output_node"]:
        return None
    others = {name: entry for name, entry in required.items() if name != names[0]}
    settings = _settings({"input": {"required": others}})
    return None if settings is None else (names[0], settings)


Way = list[tuple[str, str, dict[str, Any]]]


def _ways(nodes: Nodes, kind: str = PICTURE, most: int = 2) -> list[Way]:
    """Nodes of one pack that make a picture of a picture, one after the other: type, connection, settings."""
    found: list[Way] = []
    for name, described in sorted(nodes.items()):
        if not (taken := _takes_one(described, kind)) or not described["output"]:
            continue
        step, given = (name, *taken), described["output"][0]
        if given == PICTURE:
            found.append([step])
        elif most > 1 and given != kind:
            found += [[step, *rest] for rest in _ways(nodes, given, most - 1)]
    return sorted(found, key=len)


def _through(graph: Graph, way: Way, source: list[Any], key: str) -> list[Any]:
    """Add the nodes of a way behind a source; the last one's picture."""
    for kind, connection, settings in way:
        graph[f"{key} {kind}"] = node(kind, **settings, **{connection: source})
        source = [f"{key} {kind}", 0]
    return source


def _works_alone(server: ComfyServer, way: Way) -> bool:
    """Some need a font, or the network."""
    graph = {"image": node("LoadImage", image="ghost.png")}
    graph["see"] = node("PreviewImage", images=_through(graph, way, ["image", 0], "alone"))
    try:
        server.run(graph)
    except PromptError:
        return False
    return True


def test_nodes_of_other_packs_work_between_ours_in_one_prompt(
    comfyui: Path, tmp_path: Path, toy_bundle_path: Path
) -> None:
    """The picture passes through a node of each pack on its way to us, and the frames on their way to Loop Check."""
    names = _install(tmp_path)
    server = ComfyServer.start(comfyui, tmp_path)
    try:
        offered = server.get("/object_info")
        give_picture(server)
        (folder := tmp_path / "models/loopanimate").mkdir(parents=True, exist_ok=True)
        shutil.copy(toy_bundle_path, folder / "toy.safetensors")
        graph = loop_graph("ghost.png", bundle="toy.safetensors", side=64)
        graph["check"] = loop_check()
        used = []
        for pack in names:
            module = f"custom_nodes.{pack}"
            theirs = {k: n for k, n in offered.items() if n["python_module"] == module}
            works = (way for way in _ways(theirs)[:MOST_TRIED] if _works_alone(server, way))
            if (way := next(works, None)) is None:
                continue
            used.append(pack)
            for end, name in (("build", "image"), ("check", "images")):
                inputs = graph[end]["inputs"]
                inputs[name] = _through(graph, way, inputs[name], f"{end} {pack}")
        if not used:
            pytest.skip("no extension in COMFYUI_PACKS makes a picture of a picture")
        print("through", ", ".join(used))
        graph["save"]["inputs"]["images"] = ["check", 0]
        entry = server.run(graph)
        assert len(pictures(server, entry)) == 14
        assert entry["outputs"]["check"]["loopanimate_check"][0]["frames"] == 14
    finally:
        server.stop()
