"""Detail transfer: the frames of a loop tell the motion, the artist's still gives the pixels."""

from .estimate import estimate_motion
from .motion import LayerMotion, Motion
from .settings import DetailSettings
from .transfer import DetailLoop, find_object, transfer

__all__ = [
    "DetailLoop",
    "DetailSettings",
    "LayerMotion",
    "Motion",
    "estimate_motion",
    "find_object",
    "transfer",
]
