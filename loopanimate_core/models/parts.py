"""The network's parts as Table 1 of the paper counts them, and which of them each training stage trains."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .unet import LoopUNetConfig

_TEMPORAL_QKV = re.compile(r"\.motion_modules\.\d+\..*\.to_([qkv])\.weight$")

# Section 3.5: the parts that each stage trains; `temm` includes its projections.
STAGE_PARTS: dict[int, tuple[str, ...]] = {
    1: ("conv_in", "cab", "temm"),
    2: ("conv_in", "temm"),
    3: ("conv_in", "temm.q", "temm.v"),
}


@dataclass(frozen=True)
class PartSize:
    """A row of the parameter table; `megabytes` are 10⁶ bytes of float32, as in the paper."""

    name: str
    parameters: int

    @property
    def megabytes(self) -> float:
        return self.parameters * 4 / 1e6


def part_of(name: str) -> str:
    """The part of LoopUNet that a parameter belongs to, from its name.

    Returns:
        "conv_in"; "cab", all of a spatial transformer's blocks; "temm.q", "temm.k" and "temm.v", the motion
        modules' projections; "temm", the rest of the motion modules; or "other".
    """
    if found := _TEMPORAL_QKV.search(name):
        return "temm." + found[1]
    if ".motion_modules." in name:
        return "temm"
    if name.startswith("conv_in."):
        return "conv_in"
    return "cab" if ".transformer_blocks." in name else "other"


def in_part(name: str, part: str) -> bool:
    """Whether a parameter belongs to `part`: one of `part_of`'s names, `temm` with its projections, or `all`."""
    own = part_of(name)
    return part == "all" or own == part or own.startswith(f"{part}.")


def is_idle(name: str, config: LoopUNetConfig) -> bool:
    """Whether a parameter cannot influence the output while the image condition is one token.

    Softmax over one key is 1, so queries and keys of that attention and the norm before it have no effect and
    no gradient (weight decay would still shrink them). With routing "none" this holds for the whole attention.
    """
    if ".motion_modules." in name or not re.search(r"\.(attn2|norm2)\.", name):
        return False
    if ".transformer_blocks." not in name:  # a resnet's norm2
        return False
    part = ("down_blocks", "mid_block", "up_blocks").index(name.split(".")[0])
    source = config.routing[part]
    if source == "none":
        return True
    return source == "image" and re.search(r"\.(norm2|attn2\.to_[qk])\.", name) is not None


def parameter_table(config: LoopUNetConfig) -> list[PartSize]:
    """Table 1 of the paper for any sizes, then what each stage trains, then the sum; no memory is allocated."""
    from .unet import LoopUNet

    sizes = {name: p.numel() for name, p in LoopUNet(config, device="meta").named_parameters()}

    def total(*parts: str) -> int:
        return sum(n for name, n in sizes.items() if any(in_part(name, part) for part in parts))

    return [
        PartSize("conv_in", total("conv_in")),
        PartSize("CAB", total("cab")),
        PartSize("TEMM", total("temm")),
        PartSize("TEMM.Q", total("temm.q")),
        PartSize("TEMM.K", total("temm.k")),
        PartSize("TEMM.V", total("temm.v")),
        *(PartSize(f"stage {stage} trains", total(*parts)) for stage, parts in STAGE_PARTS.items()),
        PartSize("whole UNet", sum(sizes.values())),
    ]
