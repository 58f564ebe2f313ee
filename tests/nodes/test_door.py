"""The extension loads as ComfyUI loads it: by path, under a name that is not an identifier."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FAKES = ROOT / "tests/fakes"

# What ComfyUI's nodes.py does with each folder of custom_nodes. It runs in a process of its own,
# because it fills sys.modules; the editable install's finder is removed, so nothing is installed.
LOADER = """
import asyncio, importlib.util, logging, os, sys
logging.basicConfig()
sys.meta_path[:] = [f for f in sys.meta_path if "ditable" not in getattr(f, "__name__", "")]

def load(path):
    name = path.replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, os.path.join(path, "__init__.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not hasattr(module, "NODE_CLASS_MAPPINGS"), "ComfyUI would not look for comfy_entrypoint"
    assert os.path.isdir(os.path.join(path, module.WEB_DIRECTORY))
    extension = asyncio.run(module.comfy_entrypoint())
    return extension, asyncio.run(extension.get_node_list())
"""


def in_comfyui(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` after LOADER in `folder`, where a nodes.py stands for ComfyUI's own module."""
    (folder / "nodes.py").write_text("OWNER = 'ComfyUI'\n")
    script = folder / "main.py"
    script.write_text(LOADER + code)
    environment = {**os.environ, "PYTHONPATH": str(FAKES)}
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=folder, env=environment
    )


def copy_extension(target: Path) -> Path:
    target.mkdir()
    shutil.copy(ROOT / "__init__.py", target)
    skip = shutil.ignore_patterns("__pycache__", "data")
    for name in ("nodes", "loopanimate_core", "web"):
        shutil.copytree(ROOT / name, target / name, ignore=skip)
    return target


@pytest.mark.parametrize("name", ["ComfyUI-LoopAnimate", "loop.animate"])
def test_loads_from_any_folder_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(ROOT, target_is_directory=True)
    code = f"""
extension, nodes_of_ours = load({str(tmp_path / name)!r})
import loopanimate_core, nodes
print(type(extension).__name__, type(nodes_of_ours).__name__, nodes.OWNER)
print(os.path.dirname(loopanimate_core.__file__))
"""
    result = in_comfyui(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "LoopAnimateExtension list ComfyUI",
        str(ROOT / "loopanimate_core"),
    ]


def test_node_ids_are_ours_and_unique(tmp_path: Path) -> None:
    code = f"""
_, classes = load({str(ROOT)!r})
print(*[node.define_schema().node_id for node in classes], sep="\\n")
"""
    result = in_comfyui(code, tmp_path)
    assert result.returncode == 0, result.stderr
    ids = result.stdout.split()
    assert len(set(ids)) == len(ids)
    assert all(node_id.startswith("LoopAnimate_") for node_id in ids)


def test_a_second_copy_is_refused_by_name(tmp_path: Path) -> None:
    other = copy_extension(tmp_path / "another")
    result = in_comfyui(f"load({str(ROOT)!r})\nload({str(other)!r})\n", tmp_path)
    assert result.returncode != 0
    assert "keep one copy of LoopAnimate" in result.stderr
    assert str(ROOT / "loopanimate_core") in result.stderr


def test_a_missing_dependency_is_logged_with_its_traceback(tmp_path: Path) -> None:
    """ComfyUI itself would print one line without saying where the import failed."""
    broken = copy_extension(tmp_path / "broken")
    (broken / "loopanimate_core/__init__.py").write_text("import a_package_nobody_has\n")
    code = f"""
try:
    load({str(broken)!r})
except ModuleNotFoundError:
    print("loopanimate_core" in sys.modules)
"""
    result = in_comfyui(code, tmp_path)
    assert result.stdout.split() == ["False"]
    assert "LoopAnimate could not be loaded" in result.stderr
    assert "a_package_nobody_has" in result.stderr and "Traceback" in result.stderr
