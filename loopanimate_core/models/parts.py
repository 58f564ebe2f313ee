"""The network's parts as Table 1 of the paper counts them, and which of them each training stage trains."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .unet import LoopUNet, LoopUNetConfig

_TEMPORAL_QKV = re.compile(r"\.motion_modules\.\d+\..*\.to_([qkv])\.weight$")
TEMM = ("temm", "temm.q", "temm.k", "temm.v")

# Section 3.5: the parts that each stage trains.
STAGE_PARTS: dict[int, frozenset[str]] = {
    1: frozenset({"conv_in", "cab", *TEMM}),
    2: frozenset({"conv_in", *TEMM}),
    3: frozenset({"conv_in", "temm.q", "temm.v"}),
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


def trains_in_stage(name: str, stage: int) -> bool:
    """Whether a parameter learns in stage 1, 2 or 3."""
    return part_of(name) in STAGE_PARTS[stage]


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
    sizes = {name: p.numel() for name, p in LoopUNet(config, device="meta").named_parameters()}

    def total(*parts: str) -> int:
        return sum(size for name, size in sizes.items() if part_of(name) in parts)

    return [
        PartSize("conv_in", total("conv_in")),
        PartSize("CAB", total("cab")),
        PartSize("TEMM", total(*TEMM)),
        PartSize("TEMM.Q", total("temm.q")),
        PartSize("TEMM.K", total("temm.k")),
        PartSize("TEMM.V", total("temm.v")),
        *(PartSize(f"stage {stage} trains", total(*parts)) for stage, parts in STAGE_PARTS.items()),
        PartSize("whole UNet", sum(sizes.values())),
    ]
