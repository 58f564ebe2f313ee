"""Imports go one way: nodes → loopanimate_core ← loopanimate_training, and down the layers of each package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
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
def test_packages_import_in_one_direction(folder: str) -> None:
    wrong = [
        f"{source.relative_to(ROOT)}:{line} imports {package}"
        for source in sorted((ROOT / folder).rglob("*.py"))
        for line, package in absolute_imports(source)
        if package in FORBIDDEN[folder]
    ]
    assert not wrong


def test_core_uses_relative_imports() -> None:
    """Absolute self-imports would find another installed copy when ComfyUI loads this folder."""
    wrong = [
        f"{source.relative_to(ROOT)}:{line}"
        for source in sorted((ROOT / "loopanimate_core").rglob("*.py"))
        for line, package in absolute_imports(source)
        if package == "loopanimate_core"
    ]
    assert not wrong


# A layer imports only from itself and the layers before it. Folders (and top-level files) of one layer must
# not import each other in a circle.
LAYERS = {
    "loopanimate_core": (
        {
            "errors",
            "files",
            "lazy",
            "exit_codes",
            "extras",
            "memory",
            "parsing",
            "processes",
            "ranges",
        },
        {"models", "schedule", "solver", "picture", "travel"},
        {"closing", "conditions", "detail", "preconditioning", "encoders", "video"},
        {"settings"},
        {"bundle"},
        {"check", "convert", "sampling"},
        {"budget"},
        {"pipeline", "batch", "check_chart", "fetch"},
        {"evaluate"},
        {"cli"},
    ),
    "training/loopanimate_training": (
        {"rng", "alss", "stages", "progress", "remote"},
        {"config"},
        {"storage", "signals"},
        {"data", "distributed"},
        {"optimizer"},
        {"model"},
        {"run"},
        {"curate"},
        {"setup", "loop", "testing"},
        {"ablation"},
        {"commands", "soak", "demo", "mini", "salient"},
        {"cli"},
    ),
}


def module_of(package: Path, source: Path) -> str:
    """The folder or top-level file of a package that a source belongs to."""
    return source.relative_to(package).parts[0].removesuffix(".py")


def imports_between(package: Path) -> dict[tuple[str, str], list[str]]:
    """Imports between the modules of a package, also inside functions: (from, to) → file and line."""
    found: dict[tuple[str, str], list[str]] = {}
    for source in sorted(package.rglob("*.py")):
        module = module_of(package, source)
        if module in ("__init__", "__main__"):
            continue
        for line, target in modules_imported(package, source):
            if target != module:
                found.setdefault((module, target), []).append(f"{source.relative_to(ROOT)}:{line}")
    return found


def modules_imported(package: Path, source: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every relative import that leaves the file's own folder."""
    depth = len(source.relative_to(package).parts)
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            targets = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (
                (node.lineno, target.split(".")[0])
                for target in targets
                if not target.startswith("__")
            )


@pytest.mark.parametrize("name", LAYERS)
def test_no_import_from_a_higher_layer(name: str) -> None:
    package = ROOT / name
    layer = {module: level for level, modules in enumerate(LAYERS[name]) for module in modules}
    modules = {module_of(package, source) for source in package.rglob("*.py")}
    assert modules - layer.keys() <= {"__init__", "__main__"}, "add each new module to a layer"
    upwards = [
        f"{places[0]}: {module} imports {target}"
        for (module, target), places in imports_between(package).items()
        if layer[target] > layer[module]
    ]
    assert not upwards


PACKAGES = sorted(
    str(folder.parent.parent.relative_to(ROOT))
    for name in LAYERS
    for folder in (ROOT / name).rglob("*/__init__.py")
)


@pytest.mark.parametrize("name", dict.fromkeys(PACKAGES))
def test_no_circular_imports_between_folders(name: str) -> None:
    """In every package with subpackages, these and the files beside them import each other one way."""
    below: dict[str, set[str]] = {}
    for module, target in imports_between(ROOT / name):
        below.setdefault(module, set()).add(target)
    try:
        tuple(TopologicalSorter(below).static_order())
    except CycleError as error:
        pytest.fail(f"circular import: {' imports '.join(reversed(error.args[1]))}")


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
    """ComfyUI users may have neither, so they are imported inside the functions that use them."""
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
