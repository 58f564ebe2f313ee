"""LoopAnimate: a still picture becomes a seamlessly looping video.

The public names load on first use, so that importing the package is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import lazy_names

if TYPE_CHECKING:
    from .bundle import Bundle, read_bundle, write_bundle
    from .check import LoopReport, check_loop
    from .conditions import LoopConditions
    from .errors import LoopAnimateError
    from .models import LoopUNet, LoopUNetConfig
    from .pipeline import LoopAnimatePipeline
    from .sampling import sample_loop

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "bundle",
    "LoopAnimateError": "errors",
    "LoopAnimatePipeline": "pipeline",
    "LoopConditions": "conditions",
    "LoopReport": "check",
    "LoopUNet": "models",
    "LoopUNetConfig": "models",
    "check_loop": "check",
    "read_bundle": "bundle",
    "sample_loop": "sampling",
    "write_bundle": "bundle",
}

__all__ = [
    "Bundle",
    "LoopAnimateError",
    "LoopAnimatePipeline",
    "LoopConditions",
    "LoopReport",
    "LoopUNet",
    "LoopUNetConfig",
    "__version__",
    "check_loop",
    "read_bundle",
    "sample_loop",
    "write_bundle",
]

__getattr__ = lazy_names(__name__, _HOMES)
