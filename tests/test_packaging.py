"""What is installed, what is promised in the README, and what the wheel holds."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirement_lines(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def package_name(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement)[0].lower().replace("_", "-")


def module_names() -> list[str]:
    names = []
    for package_name in ("loopanimate_core", "loopanimate_training"):
        package = importlib.import_module(package_name)
        names += [info.name for info in pkgutil.walk_packages(package.__path__, f"{package_name}.")]
    return [name for name in names if not name.endswith("__main__")]


def test_requirements_equal_the_dependencies_in_pyproject() -> None:
    assert requirement_lines(ROOT / "requirements.txt") == PYPROJECT["project"]["dependencies"]


def test_comfyui_path_needs_no_torch_diffusers_or_transformers() -> None:
    names = {package_name(line) for line in PYPROJECT["project"]["dependencies"]}
    assert not names & {"torch", "torchvision", "diffusers", "transformers", "huggingface-hub"}


def test_every_direct_dependency_has_a_tested_version() -> None:
    tested = {package_name(line) for line in requirement_lines(ROOT / "requirements/tested.txt")}
    project = PYPROJECT["project"]
    asked = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    assert {package_name(line) for line in asked} <= tested


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("loopanimate_core", ["standalone"]),
        ("training/loopanimate_training", ["standalone", "train"]),
        ("tests", ["standalone", "train", "dev"]),
        ("benchmarks", ["standalone", "train", "dev"]),
    ],
)
def test_every_imported_package_is_asked_for(folder: str, extras: list[str]) -> None:
    project = PYPROJECT["project"]
    asked = [
        *project["dependencies"],
        *chain(*(project["optional-dependencies"][e] for e in extras)),
    ]
    declared = {package_name(line) for line in asked}
    providers = metadata.packages_distributions()
    for source in sorted((ROOT / folder).rglob("*.py")):
        for name in absolute_imports(source):
            packages = {package_name(package) for package in providers.get(name, [])}
            ours = name.startswith("loopanimate") or name in ("comfy_api", source.parent.name)
            assert ours or not packages or packages & declared, f"{source} imports {name}"


def absolute_imports(source: Path) -> set[str]:
    """Top-level packages that a file imports by name."""
    tree = ast.walk(ast.parse(source.read_text(encoding="utf-8")))
    return {
        name.split(".")[0]
        for node in tree
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level == 0
            else []
        )
    }


def test_version_is_the_same_everywhere() -> None:
    import loopanimate_core

    assert loopanimate_core.__version__ == PYPROJECT["project"]["version"]
    assert metadata.version("loopanimate") == PYPROJECT["project"]["version"]


@pytest.mark.parametrize("name", module_names())
def test_every_module_imports(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("script", PYPROJECT["project"]["scripts"].values())
def test_scripts_point_to_functions(script: str) -> None:
    module, function = script.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_readme_holds_the_commands_that_are_tested() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    install = "python -m pip install -c requirements/tested.txt"
    commands = {
        "demo-command": f"{install} '.[standalone]' && loopanimate demo",
        "test-command": f"{install} -e '.[standalone,train,dev]' && python -m pytest",
    }
    for mark, command in commands.items():
        assert f"<!-- {mark} -->\n```sh\n{command}\n```\n" in readme


def test_comfyui_finds_one_workflow_folder_and_one_web_folder() -> None:
    """A second template folder makes half of the templates answer 404; `web` twice loads it twice."""
    others = ["example_workflows", "example", "examples", "workflow"]
    assert (ROOT / "workflows").is_dir()
    assert not [name for name in others if (ROOT / name).exists()]
    assert "web" not in PYPROJECT["tool"]["comfy"]


def tracked_text_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout, so there is no list of the project's own files")
    suffixes = {".py", ".md", ".toml", ".txt", ".yaml", ".json", ".js", ".sh", ""}
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    data = ROOT / "loopanimate_core/data"
    return [
        path
        for path in paths
        if path.suffix in suffixes and path.is_file() and data not in path.parents
    ]


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    private = re.compile(r"(?<![\w.>])/(?:root|work|home|Users|mnt)/\w")
    for path in tracked_text_files():
        found = private.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found and found.group()}"


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """File names in a wheel built from a copy, so that no build folder is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("loopanimate_core", "training", "nodes", "tests", "web", "workflows"):
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_wheel_holds_the_two_packages_and_nothing_else(wheel_names: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "loopanimate_core",
        "loopanimate_training",
    }


def test_wheel_holds_every_module_and_data_file(wheel_names: list[str]) -> None:
    expected = {
        path.relative_to(base).as_posix()
        for base, package in (
            (ROOT, "loopanimate_core"),
            (ROOT / "training", "loopanimate_training"),
        )
        for path in (base / package).rglob("*")
        if path.is_file() and (path.suffix == ".py" or "data" in path.relative_to(base).parts)
    }
    assert {name for name in expected if "__pycache__" not in name} <= set(wheel_names)


def test_installed_packages_leave_generic_names_alone(tmp_path: Path) -> None:
    """`nodes` is ComfyUI's; `training`, `tests` and `web` are anybody's."""
    code = """
from importlib.util import find_spec
print(*[name for name in ("nodes", "training", "tests", "web") if find_spec(name)])
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.stdout.split() == [], result.stderr
