"""The strings stored in a video file: which names are allowed, and ffmpeg's text form of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import LoopAnimateError

FRAMES_KEY, FPS_KEY = "loop_frames", "loop_fps"

_CONTAINER_KEYS = frozenset({"encoder", "major_brand", "minor_version", "compatible_brands"})


def loop_tags(metadata: Mapping[str, str] | None, frames: int, fps: float) -> dict[str, str]:
    """The metadata with the loop's length and fps added.

    Raises:
        LoopAnimateError: a name that some format cannot store, or a value that is not a string.
    """
    tags = dict(metadata or {})
    for key, value in tags.items():
        # Matroska stores names in capitals, so only lower-case names come back unchanged.
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", key) or key in (FRAMES_KEY, FPS_KEY):
            raise LoopAnimateError(
                "a metadata name must be 1 to 64 lower-case letters, digits and _, and not"
                f" {FRAMES_KEY} or {FPS_KEY}; got {key!r}"
            )
        if not isinstance(value, str) or "\0" in value:
            raise LoopAnimateError(f"the metadata {key!r} must be a string without NUL characters")
    return tags | {FRAMES_KEY: str(frames), FPS_KEY: f"{fps:.6g}"}


def to_ffmetadata(tags: Mapping[str, str]) -> str:
    """The text of an `ffmetadata` file with these tags."""
    escaped = {key: re.sub(r"([=;#\\\n])", r"\\\1", value) for key, value in tags.items()}
    return ";FFMETADATA1\n" + "".join(f"{key}={value}\n" for key, value in escaped.items())


def from_ffmetadata(text: str) -> dict[str, str]:
    """The file's own tags in an `ffmetadata` text, without what the container adds."""
    tags = {}
    for line in re.findall(r"(?:[^\\\n]|\\.)+", text, flags=re.DOTALL):
        if line.startswith("["):  # the tags of single streams follow
            break
        if match := re.fullmatch(r"((?:[^\\=]|\\.)*)=(.*)", line, flags=re.DOTALL):
            key = match[1].lower()
            if key not in _CONTAINER_KEYS:
                tags[key] = re.sub(r"\\(.)", r"\1", match[2], flags=re.DOTALL)
    return tags
