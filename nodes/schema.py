"""Schema fields that only newer versions of ComfyUI have."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io


def supported(**fields: Any) -> dict[str, Any]:
    """Those of `fields` that the running ComfyUI's `io.Schema` has, to be passed to it as `**supported(…)`.

    A field that it does not have (0.3.48 has no `search_aliases`) would keep the whole extension from loading.
    """
    known = {entry.name for entry in dataclasses.fields(io.Schema)}
    return {name: value for name, value in fields.items() if name in known}
