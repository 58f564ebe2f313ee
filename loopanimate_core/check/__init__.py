"""Loop check: does a clip play as a seamless loop, and if not, why not?"""

from .chart import seam_chart
from .report import (
    MIN_FRAMES,
    REASONS,
    ImageEncoder,
    LoopReport,
    LoopThresholds,
    check_file,
    check_loop,
)

__all__ = [
    "MIN_FRAMES",
    "REASONS",
    "ImageEncoder",
    "LoopReport",
    "LoopThresholds",
    "check_file",
    "check_loop",
    "seam_chart",
]
