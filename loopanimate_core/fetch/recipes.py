"""The recipes, which are data: `data/recipes.json`, read without any other package.

What is not known of a file is null, never a guess. `docs/fetch.md` lists the sources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ..errors import LoopAnimateError


@dataclass(frozen=True)
class RecipeFile:
    """One file of a repository.

    Attributes:
        repository: `owner/name` on the hub.
        revision: a commit, or a branch where no commit is known.
        size_mb: megabytes (1e6 bytes) as the repository's page rounds them, or None.
        sha256: in hexadecimal digits, or None.
        licence: as the repository's page states it, or None.
        source: the page that these facts are from.
        folder, name: its place among ComfyUI's models.
    """

    repository: str
    revision: str
    file: str
    size_mb: int | None
    sha256: str | None
    licence: str | None
    source: str
    folder: str
    name: str


@dataclass(frozen=True)
class Recipe:
    """Files, and how to make a bundle of them.

    Attributes:
        note: what to know before using it; may be empty.
        files: by their role.
        assemble: the part of a bundle that each role is (`convert.assemble.PartFiles`), and `conditioning`; None
            for files that are used as they are.
    """

    name: str
    title: str
    note: str
    files: Mapping[str, RecipeFile]
    assemble: Mapping[str, str] | None

    @property
    def size_mb(self) -> int:
        """Megabytes of the files whose size is known."""
        return sum(file.size_mb or 0 for file in self.files.values())


def parse_recipes(text: str) -> dict[str, Recipe]:
    """Recipes by name, from the text of a JSON file."""
    return {
        name: Recipe(
            name,
            values["title"],
            values["note"],
            {role: RecipeFile(**file) for role, file in values["files"].items()},
            values["assemble"],
        )
        for name, values in json.loads(text).items()
    }


@cache
def load_recipes() -> dict[str, Recipe]:
    """The recipes of this version."""
    file = resources.files("loopanimate_core") / "data" / "recipes.json"
    return parse_recipes(file.read_text(encoding="utf-8"))


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        LoopAnimateError: there is none.
    """
    recipes = load_recipes()
    if name not in recipes:
        raise LoopAnimateError(f"recipe must be one of {', '.join(recipes)}, got {name!r}")
    return recipes[name]


def source_of(folder: str, name: str) -> str:
    """Where a missing file of ComfyUI's `models/folder` can be had, as a clause; empty if no recipe has it."""
    for recipe in load_recipes().values():
        for file in recipe.files.values():
            if (file.folder, file.name) == (folder, name):
                size = "size unknown" if file.size_mb is None else f"{file.size_mb} MB"
                return (
                    f"it is {file.file} ({size}) of https://huggingface.co/{file.repository}, and"
                    f" `loopanimate fetch {recipe.name} --comfyui FOLDER` puts it there"
                )
    return ""
