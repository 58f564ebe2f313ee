"""Imports run one way: nodes → loopanimate_core ← loopanimate_training; ComfyUI in nodes/ alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMFYUI = {
    "comfy",
    "comfy_api",
    "comfy_extras",
    "comfy_execution",
    "folder_paths",
    "nodes",
    "server",
}
FORBIDDEN = {
    "loopanimate_core": {*COMFYUI, "loopanimate_training"},
    "training": COMFYUI,
    "nodes": {"loopanimate_training", "diffusers", "transformers"},
}


def absolute_imports(source: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level package of every absolute import, those inside functions included."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_import_against_the_direction(folder: str) -> None:
    wrong = [
        f"{source.relative_to(ROOT)}:{line} imports {package}"
        for source in sorted((ROOT / folder).rglob("*.py"))
        for line, package in absolute_imports(source)
        if package in FORBIDDEN[folder]
    ]
    assert not wrong


def test_core_refers_to_itself_relatively() -> None:
    """Absolute self-imports would find another installed copy when ComfyUI loads this folder."""
    wrong = [
        f"{source.relative_to(ROOT)}:{line}"
        for source in sorted((ROOT / "loopanimate_core").rglob("*.py"))
        for line, package in absolute_imports(source)
        if package == "loopanimate_core"
    ]
    assert not wrong


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_importing_core_is_light() -> None:
    heavy = "'torch', 'diffusers', 'transformers', 'cv2', 'onnxruntime', 'numpy'"
    code = f"import sys, loopanimate_core; print(*{{{heavy}}} & set(sys.modules))"
    assert run_python(code).split() == []


def test_core_modules_need_neither_diffusers_nor_transformers_to_import() -> None:
    """ComfyUI users have neither: whoever needs them imports them inside the function that does."""
    code = """
import importlib, pkgutil, sys
for name in ("diffusers", "transformers", "accelerate"):
    sys.modules[name] = None  # importing it now raises ImportError
import loopanimate_core
for module in pkgutil.walk_packages(loopanimate_core.__path__, "loopanimate_core."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    run_python(code)
