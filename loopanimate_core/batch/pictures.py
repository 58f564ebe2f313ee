"""The pictures of a folder, and their contents in a form that every ComfyUI reads the same way."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LoopAnimateError
from ..files import read_file
from ..picture.folder import list_pictures as files_of
from ..video.filenames import safe_stem

if TYPE_CHECKING:
    from ..picture.images import Picture

# ComfyUI's Load Image reads these into the same pixels as `picture.images`.
_PLAIN_FORMATS = {"PNG", "JPEG", "WEBP", "BMP"}
_PLAIN_MODES = {"RGB", "RGBA", "L"}


@dataclass(frozen=True)
class PictureFile:
    """One picture of a batch.

    Attributes:
        path: the file.
        key: identifies it in the folder: its name, with escapes for bytes that are not UTF-8.
        name: the name of its loop: the stem, with the suffix added if two pictures have the same stem.
            It is unique on any file system.
        size_bytes, mtime_ns: if they change, the file counts as a new picture.
    """

    path: Path
    name: str
    size_bytes: int
    mtime_ns: int
    key: str


def list_pictures(folder: Path) -> list[PictureFile]:
    """The picture files of a folder, sorted by name, without reading them.

    Raises:
        LoopAnimateError: the folder does not exist or has no pictures.
    """
    if not folder.is_dir():
        raise LoopAnimateError(f"there is no folder {folder}")
    paths = files_of(folder)
    if not paths:
        raise LoopAnimateError(f"the folder {folder} has no picture files")
    stems = Counter(safe_stem(path.stem).casefold() for path in paths)
    taken: set[str] = set()
    keys: set[str] = set()
    pictures = []
    for path in paths:
        name, stat = safe_stem(path.stem) or "picture", path.stat()
        if stems[name.casefold()] > 1:
            name = f"{name}_{path.suffix[1:]}"
        while name.casefold() in taken:
            name += "_"
        taken.add(name.casefold())
        key = path.name.encode("utf-8", "backslashreplace").decode()
        while key in keys:
            key += "_"
        keys.add(key)
        pictures.append(PictureFile(path, name, stat.st_size, stat.st_mtime_ns, key))
    return pictures


def upload_of(picture: PictureFile, on_white: bool) -> tuple[str, bytes]:
    """The file name and contents to upload, after reading the whole picture.

    A file that ComfyUI would read differently (an animation, a colour profile, deep or CMYK colours, a
    format that it may not know) is sent as a PNG.

    Args:
        on_white: blend transparent parts with white, as Load Picture From Folder does; the alpha
            channel is sent too.

    Raises:
        LoopAnimateError: the file cannot be read as a picture.
    """
    from ..picture.images import load_picture
    from ..picture.opening import MAX_FILE_BYTES, open_picture

    loaded = load_picture(picture.path)
    data = read_file(picture.path, "picture file", MAX_FILE_BYTES)
    suffix = picture.path.suffix.lower()
    with open_picture(io.BytesIO(data)) as header:
        plain = (
            header.format in _PLAIN_FORMATS
            and header.mode in _PLAIN_MODES
            and getattr(header, "n_frames", 1) == 1
            and not header.info.get("icc_profile")
        )
    if not plain or (on_white and loaded.alpha is not None):
        data, suffix = _as_png(loaded, on_white), ".png"
    # The hash distinguishes pictures of the same name. Only plain letters, because ComfyUI reads
    # endings such as "[output]" as commands.
    letters = re.sub(r"[^\w-]+", "_", picture.name, flags=re.ASCII)
    return f"{letters}-{hashlib.sha256(data).hexdigest()[:8]}{suffix}", data


def _as_png(picture: Picture, on_white: bool) -> bytes:
    import torch
    from PIL import Image

    from ..picture.images import to_uint8

    pixels = picture.over() if on_white else picture.rgb
    if picture.alpha is not None:
        pixels = torch.cat((pixels, picture.alpha[..., None]), -1)
    file = io.BytesIO()
    Image.fromarray(to_uint8(pixels).numpy()).save(file, "PNG", compress_level=1)
    return file.getvalue()
