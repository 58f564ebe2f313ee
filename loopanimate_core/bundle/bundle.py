"""The bundle: one safetensors file with everything a LoopAnimate model is, and the same in memory.

Tensors are under `unet.`, `vae.`, `text_encoder.` and `image_encoder.`. The header has the format, the
config, the provenance of the weights, and the ModelSpec fields that other programs show.
`docs/bundle.md` describes the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..models import LoopUNet
from .config import BundleConfig

FORMAT = "loopanimate/1"


@dataclass
class Bundle:
    """A model in memory.

    Attributes:
        provenance: where its weights came from.
        path: the file it was read from, if any.
    """

    config: BundleConfig
    unet: LoopUNet
    vae: Any
    text_encoder: Any
    image_encoder: Any
    tokenizer: Any
    provenance: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def module(self, part: str) -> nn.Module:
        """One of the networks, by the prefix of its tensors."""
        return getattr(self, part)


def mini_bundle_path() -> Path:
    """The path of the small model that comes with the package."""
    return Path(__file__).parent.parent / "data" / "mini.safetensors"
