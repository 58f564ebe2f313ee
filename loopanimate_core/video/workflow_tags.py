"""ComfyUI's graph as metadata strings, from which its page restores the graph."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def workflow_tags(prompt: Any, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """Metadata for `write_video`: the prompt that ran, and the page's extra data (`workflow`).

    Entries that are None, or whose names cannot be stored in every format, are skipped.
    """
    entries = {"prompt": prompt, **(extra or {})}
    return {
        name: _json(value)
        for name, value in entries.items()
        if value is not None and _NAME.fullmatch(name)
    }


def _json(value: Any) -> str:
    """JSON that ComfyUI's page can read from every format.

    Only ASCII, because some of its readers treat bytes as characters; no NaN, which JavaScript does not
    accept; no braces in strings, because its webm reader counts them.
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
