"""Schemas that load on every ComfyUI since 0.3.48."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

CATEGORY = "LoopAnimate"


def schema(name: str, display_name: str, **fields: Any) -> io.Schema:
    """The `io.Schema` of the node `LoopAnimate_<name>`.

    A field that the running ComfyUI does not know yet (`search_aliases`, …) is left out: passing it would
    keep the whole extension from loading. An output without a name of its own is shown under its id, where
    ComfyUI would show its type.
    """
    for output in fields.get("outputs", []):
        output.display_name = output.display_name or output.id
    known = {entry.name for entry in dataclasses.fields(io.Schema)}
    return io.Schema(
        node_id=f"LoopAnimate_{name}",
        display_name=display_name,
        category=CATEGORY,
        **{key: value for key, value in fields.items() if key in known},
    )
