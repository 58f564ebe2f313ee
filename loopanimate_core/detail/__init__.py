"""Detail transfer: the frames of a loop tell the motion, the artist's still gives the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..extras import require_module
from ..lazy import lazy_names

if TYPE_CHECKING:
    from .estimate import estimate_motion
    from .loop import DetailLoop, find_object, transfer
    from .motion import LayerMotion, Motion
    from .settings import DetailSettings

_HOMES = {
    "DetailLoop": "loop",
    "DetailSettings": "settings",
    "LayerMotion": "motion",
    "Motion": "motion",
    "estimate_motion": "estimate",
    "find_object": "loop",
    "transfer": "loop",
}

__all__ = [
    "DetailLoop",
    "DetailSettings",
    "LayerMotion",
    "Motion",
    "estimate_motion",
    "find_object",
    "transfer",
]

_load = lazy_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if _HOMES.get(name, "settings") != "settings":
        require_module("cv2", "detail transfer")
    return _load(name)
