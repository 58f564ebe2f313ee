"""Every language has all texts of our nodes, in a form that the page can show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from schema_golden import LOCALES, labels, read_golden

LANGUAGES = ("en", "fr", "ja", "zh")


def read(language: str, name: str) -> dict[str, Any]:
    return json.loads((LOCALES / language / name).read_text(encoding="utf-8"))


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from leaves(entry, (*path, key))
    else:
        yield path, value


def test_these_languages_and_files_are_there() -> None:
    files = {path.relative_to(LOCALES) for path in LOCALES.rglob("*") if path.is_file()}
    names = ("main.json", "nodeDefs.json")
    assert files == {Path(language, name) for language in LANGUAGES for name in names}


@pytest.mark.parametrize("language", LANGUAGES)
def test_exactly_the_schemas_are_covered(language: str) -> None:
    expected = [path for path, _ in leaves(labels(read_golden()))]
    assert [path for path, _ in leaves(read(language, "nodeDefs.json"))] == expected
    assert list(read(language, "main.json")["nodeCategories"]) == ["LoopAnimate"]


def test_english_is_what_the_schemas_say() -> None:
    assert read("en", "nodeDefs.json") == labels(read_golden())


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_messages_the_page_can_show(language: str) -> None:
    """The page's translator reads these characters as placeholders, plurals and links, and then shows nothing."""
    for path, text in leaves(read(language, "nodeDefs.json")):
        assert text.strip() == text != "" and not set(text) & set("{}@|"), path


@pytest.mark.parametrize("language", [each for each in LANGUAGES if each != "en"])
def test_translations_are_translations(language: str) -> None:
    english = dict(leaves(labels(read_golden())))
    for path, text in leaves(read(language, "nodeDefs.json")):
        if path[-1] in ("tooltip", "description"):
            assert text != english[path], path


@pytest.mark.parametrize("language", LANGUAGES)
def test_values_an_artist_chooses_keep_their_names(language: str) -> None:
    """The list in the node is not translated, so the tooltip must say `warn` and `stop`."""
    nodes = read(language, "nodeDefs.json")
    check = nodes["LoopAnimate_LoopCheck"]["inputs"]["on_fail"]["tooltip"]
    closing = nodes["LoopAnimate_LoopSampler"]["inputs"]["closing"]["tooltip"]
    formats = nodes["LoopAnimate_SaveLoop"]["inputs"]["format"]["tooltip"]
    assert all(word in check for word in ("warn", "stop"))
    assert all(word in closing for word in ("tie", "shift", "windows", "off"))
    assert all(word in formats for word in ("mp4", "webm-av1", "prores", "ffv1", "apng"))
