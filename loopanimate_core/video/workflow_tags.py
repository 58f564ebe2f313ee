"""ComfyUI's graph as strings for a file's metadata, from which its page restores the graph."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def workflow_tags(prompt: Any, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """Metadata for `write_video`: the prompt that ran, and what the page sent along (`workflow`).

    Entries whose names no file format can hold are left out; None gives nothing.
    """
    entries = {"prompt": prompt, **(extra or {})}
    return {
        name: _json(value)
        for name, value in entries.items()
        if value is not None and _NAME.fullmatch(name)
    }


def _json(value: Any) -> str:
    """JSON that every reader of the page understands.

    ASCII alone, because some of them take bytes for letters; no NaN, which Python would write and
    JavaScript refuses; no braces in strings, because the reader of webm counts them.
    """
    text = json.dumps(_finite(value), allow_nan=False)
    return _STRING.sub(lambda found: _without_braces(found[0]), text)


def _without_braces(string: str) -> str:
    return string.replace("{", "\\u007b").replace("}", "\\u007d")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
