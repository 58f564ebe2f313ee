"""The folders under ComfyUI's `models` that the nodes read."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from loopanimate_core.errors import LoopAnimateError

NONE = "none"
MINI = "mini (bundled)"
PARTS = "parts"

FOLDERS = {
    "loopanimate": {".safetensors"},
    "loopanimate_saliency": {".onnx"},
    "animatediff_models": {".safetensors", ".ckpt", ".pt", ".pth", ".bin"},
}


def register_folder(name: str, extensions: set[str]) -> None:
    """Make `models/<name>` known, beside the places that extra_model_paths.yaml or other extensions gave it."""
    folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))
    paths, known = folder_paths.folder_names_and_paths[name]
    folder_paths.folder_names_and_paths[name] = (paths, {*known, *extensions})


def register_folders() -> None:
    """Make the model folders known."""
    for name, extensions in FOLDERS.items():
        register_folder(name, extensions)


def files_of(folder: str) -> list[str]:
    """The names of the files in a model folder; none where nobody made it known."""
    if folder not in folder_paths.folder_names_and_paths:
        return []
    return folder_paths.get_filename_list(folder)


def bundle_choices() -> list[str]:
    """What Load LoopAnimate offers, the model that always works first."""
    return [MINI, *files_of("loopanimate"), PARTS]


def bundle_path(choice: str) -> Path:
    """The file behind one of `bundle_choices`."""
    if choice != MINI:
        return model_path("loopanimate", choice)
    from loopanimate_core.bundle import mini_bundle_path  # not while ComfyUI starts

    return mini_bundle_path()


def model_path(folder: str, name: str) -> Path:
    """The file `name` of a model folder, whichever slashes it was saved with.

    Raises:
        LoopAnimateError: it is not there.
    """
    for spelling in (name, name.replace("\\", "/"), name.replace("/", "\\")):
        if path := folder_paths.get_full_path(folder, spelling):
            return Path(path)
    raise LoopAnimateError(
        f"there is no file {name!r} in models/{folder}; reload the page to see what is"
    )
