"""The recipes that ship: complete, legal, and with a source for every file in the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loopanimate_core.bundle.components import PARTS
from loopanimate_core.conditions import CONDITIONINGS
from loopanimate_core.convert.assemble import PartFiles
from loopanimate_core.fetch import load_recipes, source_of

DOCS = Path(__file__).resolve().parent.parent.parent.parent / "docs" / "fetch.md"
FILES = [
    pytest.param(file, id=f"{recipe.name}-{role}")
    for recipe in load_recipes().values()
    for role, file in recipe.files.items()
]


@pytest.mark.parametrize("file", FILES)
def test_every_file_is_described(file) -> None:
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", file.repository)
    assert re.fullmatch(r"main|[0-9a-f]{40}", file.revision)
    assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert file.size_mb is None or file.size_mb > 0
    assert file.source.startswith(f"https://huggingface.co/{file.repository}/")
    assert Path(file.name).name == file.name and Path(file.folder).name == file.folder
    text = DOCS.read_text(encoding="utf-8")
    assert file.source in text and file.file in text and file.name in text
    assert (file.sha256 or "not known") in text


def test_recipes_make_bundles_of_parts_that_exist() -> None:
    parts = {*PartFiles.__dataclass_fields__, *PARTS}
    for recipe in load_recipes().values():
        if recipe.assemble is not None:
            roles = dict(recipe.assemble)
            assert roles.pop("conditioning") in CONDITIONINGS
            assert set(roles) <= parts and set(roles.values()) == set(recipe.files)


def test_a_missing_file_of_comfyui_has_a_source() -> None:
    clause = source_of("animatediff_models", "pia.fp16.safetensors")
    assert "openmmlab/PIA-condition-adapter" in clause and "836 MB" in clause
    assert "loopanimate fetch pia --comfyui FOLDER" in clause
    assert source_of("checkpoints", "mine.safetensors") == ""
