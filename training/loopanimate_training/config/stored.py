"""Settings as checkpoints keep them, so that a run can be used from any folder and after it was moved or copied."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from ..remote import RemotePath
from .base import Section
from .same_run import section_of
from .sections import RunConfig


def stored_settings(config: RunConfig) -> dict[str, Any]:
    """The settings as JSON values, with absolute paths."""
    values, objects = config.model_dump(mode="json"), config.model_dump()
    for name in path_settings():
        key = name.rpartition(".")[2]
        pairs = zip(_find(values, name), _find(objects, name), strict=True)
        for section, original in pairs:
            path = original.get(key)
            if isinstance(path, Path) and not isinstance(path, RemotePath):
                section[key] = os.path.abspath(path)
    return values


def relocated(values: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Stored settings with the paths that hold now that the run's folder is `run`.

    A path is looked for at the same place relative to the run's folder, then where it was: a moved or copied
    tree uses its own files, and a run that was copied alone those it was made from. In checkpoints of earlier
    versions paths may be relative to a folder that nobody knows, but so is `out`, which makes up for it.
    """
    moved, out = copy.deepcopy(dict(values)), values.get("out")
    if not isinstance(out, str) or not out:
        return moved
    for name in path_settings():
        key = name.rpartition(".")[2]
        for section in _find(moved, name):
            stored = section.get(key)
            if isinstance(stored, str) and stored and os.path.isabs(stored) == os.path.isabs(out):
                beside = os.path.normpath(run.absolute() / os.path.relpath(stored, out))
                section[key] = beside if os.path.exists(beside) else stored
    return moved


def path_settings(section: type[Section] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Dotted names of the settings that may be paths."""
    for name, field in section.model_fields.items():
        if inner := section_of(field.annotation):
            yield from path_settings(inner, f"{prefix}{name}.")
        elif Path in (field.annotation, *get_args(field.annotation)):
            yield prefix + name


def _find(values: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The mappings that may hold a dotted setting: of the section `data.mix` as many as there are data sets."""
    section = name.rpartition(".")[0]
    found: list[Any] = [values]
    for part in section.split(".") if section else ():
        inner = [one.get(part) for one in found if isinstance(one, dict)]
        found = [
            one
            for value in inner
            for one in (value if isinstance(value, list | tuple) else [value])
        ]
    return [one for one in found if isinstance(one, dict)]
