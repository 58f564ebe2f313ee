"""From a recipe to files: a bundle, or parts in ComfyUI's folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle.places import SUFFIX, models_folder
from ..errors import LoopAnimateError
from ..files import atomic_write, make_folder
from .download import download, is_cached, require_hub, require_space, sha256_of
from .recipes import Recipe, RecipeFile

if TYPE_CHECKING:
    from ..bundle import Bundle


def fetch_bundle(
    recipe: Recipe,
    target: Path,
    *,
    endpoint: str | None = None,
    offline: bool = False,
    quiet: bool = False,
) -> Path:
    """Download a recipe's files and write them as one bundle in half precision.

    Args:
        target: the bundle's path; its folder is created.
        endpoint, offline, quiet: as in `download`.

    Raises:
        LoopAnimateError: the recipe makes no bundle, or a file cannot be had, used or written.
    """
    if recipe.assemble is None:
        raise LoopAnimateError(
            f"recipe {recipe.name} makes no model: its files are used as they are, from ComfyUI's folders"
        )
    make_folder(target.parent)
    require_space([], target.parent, recipe.size_mb)
    paths = _download_all(recipe, endpoint, offline, quiet)
    import torch

    from ..bundle import write_bundle

    bundle = _assemble(recipe, paths)
    licences = sorted({file.licence or "unknown" for file in recipe.files.values()})
    write_bundle(target, bundle, torch.float16, title=recipe.title, license=", ".join(licences))
    return target


def fetch_parts(
    recipe: Recipe,
    models: Path,
    *,
    endpoint: str | None = None,
    offline: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Download a recipe's files and put them into the folders that ComfyUI reads.

    Files that are there already are kept if they are the same. No disk space is used twice where the cache is on
    the same disk.

    Args:
        models: ComfyUI's `models` folder.
        endpoint, offline, quiet: as in `download`.

    Raises:
        LoopAnimateError: another file has the name, or a file cannot be had or written.
    """
    targets = {role: models / file.folder / file.name for role, file in recipe.files.items()}
    missing = {role: file for role, file in recipe.files.items() if not targets[role].exists()}
    for role, target in targets.items():
        if role not in missing:
            _require_same(recipe.files[role], target)
    require_space([file for file in missing.values() if not is_cached(file)], _cache())
    for role, file in missing.items():
        source = download(file, endpoint=endpoint, offline=offline, quiet=quiet)
        make_folder(targets[role].parent)
        place(source, targets[role])
    return list(targets.values())


def bundle_path_of(recipe: Recipe) -> Path:
    """Where a recipe's bundle is by default: `--bundle NAME` finds it there."""
    return models_folder() / f"{recipe.name}{SUFFIX}"


def comfyui_models(folder: Path) -> Path:
    """The `models` folder of a ComfyUI: of its own folder, or the folder itself.

    Raises:
        LoopAnimateError: it is neither.
    """
    if (folder / "models").is_dir():
        return folder / "models"
    if folder.name == "models" and folder.is_dir():
        return folder
    raise LoopAnimateError(f"{folder} is not a ComfyUI folder: it has no folder models")


def place(source: Path, target: Path) -> None:
    """Put a file of the cache at `target`, as a hard link where that is possible, else as a copy."""
    source = source.resolve()
    try:
        os.link(source, target)
    except FileExistsError:
        raise LoopAnimateError(f"{target} exists") from None
    except OSError:  # another disk, or a file system without links
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)


def _download_all(
    recipe: Recipe, endpoint: str | None, offline: bool, quiet: bool
) -> dict[str, Path]:
    """The files' paths in the cache, by role."""
    require_space([file for file in recipe.files.values() if not is_cached(file)], _cache())
    return {
        role: download(file, endpoint=endpoint, offline=offline, quiet=quiet)
        for role, file in recipe.files.items()
    }


def _assemble(recipe: Recipe, paths: dict[str, Path]) -> Bundle:
    import torch

    from ..convert.assemble import PartFiles, assemble

    roles = dict(recipe.assemble or {})
    conditioning = roles.pop("conditioning")
    bundle = assemble(
        PartFiles(**{part: paths[role] for part, role in roles.items()}),
        conditioning=conditioning,
        dtype=torch.float16,
    )
    bundle.provenance |= {
        "recipe": recipe.name,
        "files": {
            role: f"{file.repository}/{file.file}@{file.revision}"
            for role, file in recipe.files.items()
        },
    }
    return bundle


def _require_same(file: RecipeFile, target: Path) -> None:
    if file.sha256 is not None and sha256_of(target) != file.sha256:
        raise LoopAnimateError(
            f"{target} is another file than {file.file} of {file.repository}; move it away and fetch again"
        )


def _cache() -> Path:
    return Path(require_hub().constants.HF_HUB_CACHE)
