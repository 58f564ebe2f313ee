"""A picture in ComfyUI's input folder, so that the basic template runs before the user has chosen one."""

from __future__ import annotations

import shutil
from pathlib import Path

import folder_paths

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write
from loopanimate_core.picture.folder import BUNDLED

from .common import log

SAMPLE, NAME = "ghost.png", "loopanimate_ghost.png"


def offer_sample_picture() -> None:
    """Copy the picture into the input folder, unless a file of that name is there. It never fails."""
    target = Path(folder_paths.get_input_directory()) / NAME
    if target.exists() or not target.parent.is_dir():
        return
    try:
        with atomic_write(target) as temporary:
            shutil.copyfile(BUNDLED / SAMPLE, temporary)
    except LoopAnimateError as error:  # a read-only folder: the template then asks for a picture
        log.info("no sample picture: %s", error)
