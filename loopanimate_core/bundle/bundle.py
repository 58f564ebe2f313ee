"""The bundle: one safetensors file with everything a LoopAnimate model is, and the same in memory.

Tensors are under `unet.`, `vae.`, `text_encoder.`, `image_encoder.`, and optionally `few_steps.`. The header has
the format, the config, the provenance of the weights, and the ModelSpec fields that other programs show.
`docs/bundle.md` describes the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..encoders.tokenizer import Tokenizer
from ..models import LoopUNet
from .config import BundleConfig
from .few_steps import few_step_unet

FORMAT = "loopanimate/1"
FEW_STEPS_FORMAT = "loopanimate/2"  # with few-step weights, which earlier versions do not know
FORMATS = (FORMAT, FEW_STEPS_FORMAT)


@dataclass
class Bundle:
    """A model in memory.

    Attributes:
        image_encoder: None where the model has none.
        provenance: where its weights came from.
        path: the file it was read from, if any.
        few_steps: the few-step weights as they are stored (`few_steps.py`); empty without.
    """

    config: BundleConfig
    unet: LoopUNet
    vae: Any
    text_encoder: Any
    image_encoder: Any
    tokenizer: Tokenizer
    provenance: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    few_steps: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """Its networks by the prefixes of their tensors."""
        return {part: self.module(part) for part in self.config.parts}

    def module(self, part: str) -> nn.Module:
        """One of the networks, by the prefix of its tensors."""
        return getattr(self, part)

    def few_step_unet(self) -> LoopUNet:
        """The UNet with the few-step weights, which shares all others with `unet`; `unet` itself without."""
        return few_step_unet(self.unet, self.few_steps) if self.few_steps else self.unet


def mini_bundle_path() -> Path:
    """The path of the small model that comes with the package."""
    return Path(__file__).parent.parent / "data" / "mini.safetensors"
