"""A fake of ComfyUI's `folder_paths`. Each test sets its own base folder with `use`."""

from __future__ import annotations

import os
import time
from pathlib import Path

base_path = "."
supported_pt_extensions = {".ckpt", ".pt", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}
folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {}


def use(base: Path) -> None:
    """Reset to empty folders under `base`."""
    global base_path, models_dir
    base_path, models_dir = str(base), str(base / "models")
    folder_names_and_paths.clear()
    for name in ("checkpoints", "diffusion_models", "clip_vision", "loras", "vae"):
        folder_names_and_paths[name] = ([os.path.join(models_dir, name)], supported_pt_extensions)
    for name in ("input", "output", "temp", *(f"models/{key}" for key in folder_names_and_paths)):
        (base / name).mkdir(parents=True, exist_ok=True)


models_dir = os.path.join(base_path, "models")


def get_input_directory() -> str:
    return os.path.join(base_path, "input")


def get_output_directory() -> str:
    return os.path.join(base_path, "output")


def get_temp_directory() -> str:
    return os.path.join(base_path, "temp")


def add_model_folder_path(
    folder_name: str, full_folder_path: str, is_default: bool = False
) -> None:
    paths, _extensions = folder_names_and_paths.setdefault(folder_name, ([], set()))
    if full_folder_path not in paths:
        paths.insert(0 if is_default else len(paths), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    return list(folder_names_and_paths[folder_name][0])


def get_filename_list(folder_name: str) -> list[str]:
    folders, extensions = folder_names_and_paths[folder_name]
    found = {
        str(path.relative_to(folder))
        for folder in map(Path, folders)
        for path in folder.rglob("*")
        if path.is_file() and (not extensions or path.suffix.lower() in extensions)
    }
    return sorted(found)


def get_full_path(folder_name: str, filename: str) -> str | None:
    for folder in folder_names_and_paths[folder_name][0]:
        path = os.path.join(folder, filename)
        if os.path.isfile(path):
            return path
    return None


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    path = get_full_path(folder_name, filename)
    if path is None:
        raise FileNotFoundError(
            f"Model in folder '{folder_name}' with filename '{filename}' not found."
        )
    return path


def get_input_subfolders() -> list[str]:
    top = Path(get_input_directory())
    return sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_dir())


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """Folder, name, counter (one more than the highest in use), subfolder, prefix."""
    now = time.localtime()
    parts = {
        "width": str(image_width),
        "height": str(image_height),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    for name, value in parts.items():
        filename_prefix = filename_prefix.replace(f"%{name}%", value)
    subfolder, name = os.path.split(os.path.normpath(filename_prefix))
    folder = os.path.join(output_dir, subfolder)
    if os.path.commonpath((output_dir, os.path.abspath(folder))) != output_dir:
        raise Exception("Saving image outside the output folder is not allowed.")
    os.makedirs(folder, exist_ok=True)
    digits = [
        int(entry[len(name) + 1 :].split("_")[0])
        for entry in os.listdir(folder)
        if entry.startswith(f"{name}_") and entry[len(name) + 1 :].split("_")[0].isdigit()
    ]
    return folder, name, max(digits, default=0) + 1, subfolder, filename_prefix
