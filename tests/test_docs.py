"""What the documentation mentions exists: links, paths, modules, commands, settings, tests, make targets."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import shlex
from pathlib import Path

import pytest
from pydantic import BaseModel

from loopanimate_core.cli.parser import build_parser as core_parser
from loopanimate_training.cli import build_parser as training_parser
from loopanimate_training.config import CurateConfig, LimitsConfig, RunConfig

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("docs", "loopanimate_core", "training", "web", "workflows")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
)
CORE = ROOT / "loopanimate_core"
PARSERS = {"loopanimate": core_parser, "loopanimate-train": training_parser}
SOURCES = ("py", "mjs", "js", "css", "sh", "toml")
OTHERS = ("md", "json", "jsonl", "yaml", "txt", "svg", "jpg", "png", "mp4", "safetensors")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def spans(page: Path) -> list[str]:
    """The inline code of a page."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced code of a page in one of these languages."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [code for language, code in found if language in languages]


def anchors(page: Path) -> set[str]:
    """The ids that Markdown viewers give to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@every_page
def test_links_have_targets(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        there = page.parent / target if target else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


@pytest.fixture(scope="module")
def files() -> set[str]:
    """Every file and folder of the repository, relative to its root."""
    tops = [path for path in ROOT.iterdir() if not path.name.startswith(".")]
    paths = [*tops, *(path for top in tops for path in top.rglob("*"))]
    return {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}


@every_page
def test_paths_exist(page: Path, files: set[str]) -> None:
    """Source files by their path or the end of it; other files and folders if they begin in one of our folders.

    Other paths, such as `runs/stage1/` or `models/loras`, are examples or belong to ComfyUI.
    """
    path_like = r"(?<![\w./<>$*-])(?:\./)?((?:[\w.-]+/)*[\w.-]+(?:/|\.\w+))(?![\w/<*])"
    tops = {name for name in files if "/" not in name} | {"loopanimate_training"}
    missing = []
    for path in [path for span in spans(page) for path in re.findall(path_like, span)]:
        top, suffix = path.split("/")[0], path.rpartition(".")[2]
        ours = top in tops and "/" in path and (suffix in OTHERS or path.endswith("/"))
        wanted = path.rstrip("/")
        found = wanted in files or any(name.endswith(f"/{wanted}") for name in files)
        if (suffix in SOURCES or ours) and not found:
            missing.append(path)
    assert not missing


def importable(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(name)
        return True
    module, _, attribute = name.rpartition(".")
    with contextlib.suppress(ModuleNotFoundError):
        return hasattr(importlib.import_module(module), attribute)
    return False


@every_page
def test_modules_and_their_names_exist(page: Path) -> None:
    """`loopanimate_core.check.check_loop`, `sampling.sample_loop`, and the imports in Python examples."""
    front = "|".join(path.stem for path in CORE.glob("[!_]*.py"))
    text = "\n".join(spans(page))
    names = set(re.findall(r"(?<![\w/])loopanimate_(?:core|training)(?:\.\w+)+(?![\w/])", text))
    short = re.findall(rf"(?<![\w./])(?:{front})\.\w+(?![\w/])", text)
    names |= {f"loopanimate_core.{name}" for name in short}
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("loopanimate"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = {name for name in names if name.rpartition(".")[2] not in SOURCES}
    assert not [name for name in sorted(names) if not importable(name)]


def command_lines() -> list[list[str]]:
    """Our commands in the shell examples of all pages, as words."""
    found = []
    for code in [code for page in PAGES for code in blocks(page, "sh", "bash")]:
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] in PARSERS:
                found.append(words)
    return found


@pytest.mark.parametrize("words", command_lines(), ids=shlex.join)
def test_commands_parse(words: list[str]) -> None:
    try:
        PARSERS[words[0]]().parse_args(words[1:])
    except SystemExit as stop:
        assert stop.code == 0  # --help


def setting_names(section: type[BaseModel], prefix: str = "") -> set[str]:
    """The dotted names of a configuration's fields, nested ones included."""
    names = set()
    for name, field in section.model_fields.items():
        names.add(prefix + name)
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                names |= setting_names(inner, f"{prefix}{name}.")
    return names


@every_page
def test_settings_of_a_run_exist(page: Path) -> None:
    legal = setting_names(RunConfig) | setting_names(CurateConfig)
    sections = "|".join({name.split(".")[0] for name in legal if "." in name})
    text = "\n".join(spans(page))
    named = set(re.findall(rf"(?<![\w./])(?:{sections})\.\w+(?:\.\w+)?(?![\w/(-])", text))
    named = {name for name in named if name.rpartition(".")[2] not in (*SOURCES, *OTHERS)}
    assert not named - legal


def test_limits_of_curation_are_documented_with_their_defaults() -> None:
    text = prose(ROOT / "docs/curation.md")
    for name, field in LimitsConfig.model_fields.items():
        assert f"`limits.{name}` ({field.default})" in text


def test_quoted_messages_are_in_the_source() -> None:
    """The messages in the troubleshooting table, except ComfyUI's own."""
    comfyui = {"IMPORT FAILED", "missing node types", "value not in list"}
    rows = prose(ROOT / "docs/comfyui.md").partition("## Troubleshooting")[2].splitlines()
    symptoms = "\n".join(row.split(" | ")[0] for row in rows)
    quoted = set(re.findall(r'"([^"]+)"', symptoms)) - comfyui
    code = [ROOT / "__init__.py", *CORE.rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]
    source = "\n".join(path.read_text(encoding="utf-8") for path in code)
    assert quoted
    assert not [message for message in quoted if message not in source]


@every_page
def test_mentioned_tests_exist(page: Path) -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    defined = set(re.findall(r"^def ((?:test|check)_\w+)", sources, flags=re.MULTILINE))
    named = {span for span in spans(page) if re.fullmatch(r"(?:test|check)_\w+", span)}
    assert not named - defined - {"check_loop"}


@every_page
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))
    shell = "\n".join([*spans(page), *blocks(page, "sh", "bash")])
    assert set(re.findall(r"^make ([\w-]+)", shell, flags=re.MULTILINE)) <= targets
