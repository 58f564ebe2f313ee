"""Where fetched models are, and models by name."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import LoopAnimateError

FOLDER_VARIABLE = "LOOPANIMATE_MODELS"
SUFFIX = ".safetensors"


def models_folder() -> Path:
    """The folder of fetched models: `$LOOPANIMATE_MODELS`, or `.loopanimate/models` in the home folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".loopanimate" / "models"


def find_bundle(name: str | Path) -> Path:
    """The file of a bundle: a path, or the name of a fetched model without folder and suffix.

    Raises:
        LoopAnimateError: a plain name of which there is neither a file nor a fetched model.
    """
    path = Path(name)
    if path.suffix or len(path.parts) != 1 or path.exists():
        return path
    fetched = models_folder() / f"{path.name}{SUFFIX}"
    if fetched.is_file():
        return fetched
    raise LoopAnimateError(
        f"there is no file {name}, and no model of that name in {models_folder()};"
        " `loopanimate fetch` lists the models that it can make"
    )
