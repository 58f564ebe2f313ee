"""The denoising network, and its parts as the paper counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .unet import LoopUNet, LoopUNetConfig, SpeedUps

__all__ = ["LoopUNet", "LoopUNetConfig", "SpeedUps"]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "unet"))
