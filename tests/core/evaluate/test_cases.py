"""Test sets: folders, lists, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from moving_picture import disc

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.evaluate.cases import BUNDLED_LIST, read_cases
from loopanimate_core.picture.images import save_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures; one has a prompt and a mask."""
    for name in ("cat.png", "dog.png", "cat_mask.png"):
        save_picture(disc(), tmp_path / name)
    (tmp_path / "cat.txt").write_text("a cat swaying\n")
    return tmp_path


def test_a_folder_has_prompts_and_masks_beside_its_pictures(folder: Path) -> None:
    cat, dog = read_cases(folder, "moving")
    assert (cat.name, cat.prompt, cat.mask) == ("cat", "a cat swaying", folder / "cat_mask.png")
    assert (dog.name, dog.prompt, dog.mask) == ("dog", "moving", None)


def test_csv_and_jsonl_say_the_same(folder: Path) -> None:
    (folder / "list.csv").write_text(
        "picture,prompt,mask\ncat.png,swaying,cat_mask.png\ndog.png,up,\n"
    )
    rows = [
        {"picture": "cat.png", "prompt": "swaying", "mask": "cat_mask.png"},
        {"picture": "dog.png", "prompt": "up"},
    ]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cases = read_cases(folder / "list.csv")
    assert cases == read_cases(folder / "list.jsonl")
    assert [case.prompt for case in cases] == ["swaying", "up"]
    assert read_cases(folder / "list.csv", limit=1) == cases[:1]


def test_the_bundled_list_names_every_bundled_picture() -> None:
    cases = read_cases(BUNDLED_LIST)
    assert {case.picture.name for case in cases} == {
        path.name for path in BUNDLED_LIST.parent.glob("*.png")
    }
    assert all(case.prompt for case in cases)


def test_a_picture_has_the_same_seed_in_every_test_set(folder: Path) -> None:
    (folder / "list.csv").write_text("picture,prompt\ndog.png,up\n")
    alone = read_cases(folder / "list.csv")[0]
    assert alone.seed(0) == read_cases(folder)[1].seed(0)
    assert alone.seed(0) not in (alone.seed(1), read_cases(folder)[0].seed(0))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.csv", "image,prompt\ncat.png,up\n", "must name the columns"),
        ("list.csv", "picture,prompt\nbird.png,up\n", "there is no file .*bird.png"),
        ("list.csv", "picture,prompt\n", "no pictures"),
        ("list.csv", "picture,prompt\ncat.png,a\ncat.png,b\n", "2 pictures named cat"),
        ("list.jsonl", "{", "line 1 .* is not JSON"),
        ("list.jsonl", "[]", "must be a JSON object"),
        ("list.jsonl", '{"prompt": "up"}', "must have a picture"),
        ("list.txt", "cat.png", "must be a folder of pictures or a list"),
    ],
)
def test_a_bad_list_is_one_sentence(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(LoopAnimateError, match=message):
        read_cases(folder / name)


def test_at_least_one_picture_is_asked_for(folder: Path) -> None:
    with pytest.raises(LoopAnimateError, match="at least 1, got 0"):
        read_cases(folder, limit=0)
