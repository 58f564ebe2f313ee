"""The documentation holds: links, paths, imports, commands, settings and tests that it names exist."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("docs", "loopanimate_core", "training", "web", "workflows")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
)
SOURCES = ("py", "mjs", "js", "css", "sh", "toml")
DATA = ("md", "json", "yaml", "txt", "svg", "jpg", "png", "safetensors")
# Folders of ours; a path that begins with another one is an example, such as `runs/stage1`.
TOPS = {path.name for path in ROOT.iterdir()} | {"loopanimate_training"}
SECTIONS = ("batch", "clip", "data", "log", "loss", "model", "optimizer", "save", "validation")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def spans(page: Path) -> list[str]:
    """The inline code of a page."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced code of a page in one of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return [code for language, code in found if language in languages]


def own_files() -> set[str]:
    """Every source file and every file in a folder that pages speak of, relative to the root."""
    skipped = {"__pycache__", "node_modules"}
    return {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*")
        if not any(
            part.startswith(".") or part in skipped for part in path.relative_to(ROOT).parts[:-1]
        )
    }


@pytest.fixture(scope="module")
def files() -> set[str]:
    return own_files()


def anchors(page: Path) -> set[str]:
    """The ids that a forge gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        there = page.parent / target if target else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


@every_page
def test_paths_exist(page: Path, files: set[str]) -> None:
    """A source file by its name or the end of its path; other files and folders where they begin in one of ours."""
    missing = []
    for span in spans(page):
        for path in re.findall(
            r"(?<![\w./<>$*-])(?:\./)?((?:[\w.-]+/)*[\w.-]+(?:/|\.\w+))(?![\w/<*])", span
        ):
            top, suffix = path.split("/")[0], path.rpartition(".")[2]
            named = suffix in SOURCES or (
                "/" in path and top in TOPS and (suffix in DATA or path[-1] == "/")
            )
            wanted = path.rstrip("/")
            if named and not any(name == wanted or name.endswith(f"/{wanted}") for name in files):
                missing.append(path)
    assert not missing


def importable(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(name)
        return True
    module, _, attribute = name.rpartition(".")
    return bool(module) and hasattr(importlib.import_module(module), attribute)


@every_page
def test_modules_and_their_names_exist(page: Path) -> None:
    dotted = r"loopanimate_(?:core|training)(?:\.\w+)+"
    names = {
        name for span in spans(page) for name in re.findall(rf"(?<![\w/]){dotted}(?![\w/])", span)
    }
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("loopanimate"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    names -= {name for name in names if name.endswith(".py")}
    assert not [name for name in sorted(names) if not importable(name)]


def command_lines() -> list[tuple[str, list[str]]]:
    """Every line of a shell block that calls one of our two commands, without what the shell takes from it."""
    found = []
    for page in PAGES:
        for code in blocks(page, "sh", "bash"):
            for line in code.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and words[0].partition("=")[0].isupper():
                    words = words[1:]
                if words and words[0] in ("loopanimate", "loopanimate-train"):
                    found.append((str(page.relative_to(ROOT)), words))
    return found


@pytest.mark.parametrize("page, words", command_lines(), ids=lambda value: " ".join(value)[-60:])
def test_commands_are_ones_that_the_parsers_take(page: str, words: list[str]) -> None:
    if words[0] == "loopanimate":
        from loopanimate_core.cli.parser import build_parser
    else:
        from loopanimate_training.cli import build_parser
    try:
        build_parser().parse_args(words[1:])
    except SystemExit as stop:  # `--help` ends with 0
        assert stop.code == 0, f"{page}: {shlex.join(words)}"


@every_page
def test_settings_of_a_run_exist(page: Path) -> None:
    from loopanimate_training.config import RunConfig

    legal = setting_names(RunConfig)
    named = {
        name
        for span in spans(page)
        for name in re.findall(rf"(?<![\w./])(?:{'|'.join(SECTIONS)})\.[a-z_]+(?![\w./(])", span)
    }
    named = {name for name in named if name.split(".")[1] not in (*SOURCES, *DATA, "mp4", "jsonl")}
    assert named <= legal, sorted(named - legal)


def setting_names(section: type, prefix: str = "") -> set[str]:
    """The dotted names of a pydantic section's fields, nested ones included."""
    import pydantic

    names = set()
    for name, field in section.model_fields.items():
        names.add(prefix + name)
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
                names |= setting_names(inner, f"{prefix}{name}.")
    return names


@every_page
def test_tests_that_are_named_exist(page: Path) -> None:
    sources = "\n".join(text_of(path) for path in (ROOT / "tests").rglob("*.py"))
    defined = set(re.findall(r"^def (\w+)", sources, flags=re.MULTILINE))
    named = {span for span in spans(page) if re.fullmatch(r"(?:test|check)_\w+", span)}
    assert named <= defined | {"check_loop", "check_file"}, sorted(named - defined)


@every_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", text_of(ROOT / "Makefile"), flags=re.MULTILINE))
    shell = "\n".join([*spans(page), *blocks(page, "sh", "bash")])
    assert set(re.findall(r"(?:^|; |&& )make ([\w-]+)", shell, flags=re.MULTILINE)) <= targets
