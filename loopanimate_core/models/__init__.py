"""The denoising network."""

from .unet import LoopUNet, LoopUNetConfig, SpeedUps

__all__ = ["LoopUNet", "LoopUNetConfig", "SpeedUps"]
