"""The folders in ComfyUI's `models` that the nodes read."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.fetch import source_of

NONE = "none"
MINI = "mini (bundled)"
PARTS = "parts"

FOLDERS = {
    "loopanimate": {".safetensors"},
    "loopanimate_saliency": {".onnx"},
    "animatediff_models": {".safetensors", ".ckpt", ".pt", ".pth", ".bin"},
}


def register_folder(name: str, extensions: set[str]) -> None:
    """Register `models/<name>`; folders from extra_model_paths.yaml and other extensions are kept."""
    folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))
    paths, known = folder_paths.folder_names_and_paths[name]
    folder_paths.folder_names_and_paths[name] = (paths, {*known, *extensions})


def register_folders() -> None:
    """Register the model folders."""
    for name, extensions in FOLDERS.items():
        register_folder(name, extensions)


def files_of(folder: str) -> list[str]:
    """The names of the files in a model folder; empty if the folder is not registered."""
    if folder not in folder_paths.folder_names_and_paths:
        return []
    return folder_paths.get_filename_list(folder)


def bundle_choices() -> list[str]:
    """The choices of Load LoopAnimate, the bundled model first."""
    return [MINI, *files_of("loopanimate"), PARTS]


def bundle_path(choice: str) -> Path:
    """The file behind one of `bundle_choices`."""
    if choice != MINI:
        return model_path("loopanimate", choice)
    from loopanimate_core.bundle import mini_bundle_path  # not while ComfyUI starts

    return mini_bundle_path()


def model_path(folder: str, name: str) -> Path:
    """The file `name` of a model folder; a workflow may have saved it with other slashes.

    Raises:
        LoopAnimateError: it does not exist.
    """
    for spelling in (name, name.replace("\\", "/"), name.replace("/", "\\")):
        if path := folder_paths.get_full_path(folder, spelling):
            return Path(path)
    source = source_of(folder, name)
    raise LoopAnimateError(
        f"there is no file {name!r} in models/{folder}; "
        + (f"{source}, then " if source else "")
        + "reload the page to update the list"
    )
