"""Loop check: does a clip play as a seamless loop, and if not, why not?"""

from .chart import seam_chart
from .report import REASONS, LoopReport
from .score import MIN_FRAMES, ImageEncoder, check_file, check_loop
from .verdict import LoopThresholds

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
