"""The named parts of LoopUNet (Table 1 and Sec. 3.5 of the paper), decided by parameter names alone."""

from __future__ import annotations

# One-element parts; `temm` also holds the four kinds of temporal projection.
PARTS = ("conv_in", "cab", "temm", "temm_q", "temm_k", "temm_v", "temm_out", "rest")
_PROJECTIONS = {"to_q": "temm_q", "to_k": "temm_k", "to_v": "temm_v", "to_out": "temm_out"}


def part_of(name: str) -> str:
    """The smallest part that a parameter belongs to; `rest` is what no stage of the paper trains."""
    pieces = name.split(".")
    if pieces[0] == "conv_in":
        return "conv_in"
    if "motion_modules" in pieces:
        return next((_PROJECTIONS[piece] for piece in pieces if piece in _PROJECTIONS), "temm")
    return "cab" if "transformer_blocks" in pieces else "rest"


def in_part(name: str, part: str) -> bool:
    """Whether a parameter belongs to `part`; all of a motion module belongs to `temm`."""
    own = part_of(name)
    return own == part or (part == "temm" and own.startswith("temm"))


def is_unread(name: str, routing: tuple[str, str, str]) -> bool:
    """Whether a cross-attention weight plays no role in a forward pass with one image token.

    Softmax over one token is 1, so queries and keys are not needed; a part without condition skips all.
    """
    if "motion_modules" in name or ".transformer_blocks." not in name:
        return False
    condition = dict(zip(("down_blocks", "mid_block", "up_blocks"), routing, strict=True))[name.split(".")[0]]
    query_side = any(piece in name for piece in (".norm2.", ".attn2.to_q.", ".attn2.to_k."))
    return {"text": False, "image": query_side, "none": query_side or ".attn2." in name}[condition]
