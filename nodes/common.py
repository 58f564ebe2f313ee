"""What several nodes need: pictures as the core wants them, and results a page can show."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

import folder_paths
import torch

log = logging.getLogger("loopanimate")


def rgb(images: torch.Tensor) -> torch.Tensor:
    """An IMAGE batch as float32 `[F, H, W, 3]`: its transparency is left out, its memory shared."""
    return images[..., :3].float()


def temp_file(stem: str, suffix: str) -> tuple[Path, dict[str, str]]:
    """A new path in ComfyUI's temporary folder, and the address under which a page finds it.

    The name is random, because browsers keep pictures for longer than ComfyUI keeps its counter.
    """
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{stem}_{secrets.token_hex(4)}{suffix}"
    return folder / name, {"filename": name, "subfolder": "", "type": "temp"}
