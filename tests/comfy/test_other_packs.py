"""Other extensions beside this one: they are offered, and ComfyUI's own nodes are, as without it.

`COMFYUI_PACKS` names a folder whose folders are extensions; without it the tests are skipped.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from comfy_server import ComfyServer

OURS = "custom_nodes.LoopAnimate"


@pytest.fixture(scope="module")
def offers(
    comfyui: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a server with the packs offers: beside ours, and without it."""
    place = os.environ.get("COMFYUI_PACKS")
    if not place:
        pytest.skip("COMFYUI_PACKS does not name a folder with extensions")
    base = tmp_path_factory.mktemp("packs")
    names = [path.name for path in sorted(Path(place).expanduser().iterdir()) if path.is_dir()]
    for name in names:
        shutil.copytree(Path(place).expanduser() / name, base / "custom_nodes" / name)
    alone = ["--disable-all-custom-nodes", "--whitelist-custom-nodes", *names]
    # Ours first: what it puts into the input folder is then there in both.
    return _offer(comfyui, base, []), _offer(comfyui, base, alone)


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
