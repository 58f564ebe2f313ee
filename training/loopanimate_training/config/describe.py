"""All settings as a table for people: `loopanimate-train --help-config`."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ..stages import STAGES, stage_defaults
from .base import Section
from .same_run import flat_settings, section_of
from .sections import RunConfig

SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}  # as pydantic names limits
NAMES = {bool: "true | false", int: "integer", float: "number", str: "text", Path: "path"}


def describe_config() -> str:
    """Every setting by section: dotted name, type, default, and a sentence."""
    by_stage = set(flat_settings(stage_defaults(STAGES[0])))
    lines: list[str] = []
    for prefix, section in sections():
        lines.append(
            f"{prefix.rstrip('.') or 'run'}: {(section.__doc__ or '').partition(chr(10))[0]}"
        )
        for name, field in settings_of(section):
            default = default_text(field) if prefix + name not in by_stage else "set by --stage"
            kind = type_text(field.annotation, field.metadata)
            lines.append(f"  {prefix}{name}: {kind} ({default})")
            lines.append(f"      {field.description}")
        lines.append("")
    return "\n".join(lines)


def sections(
    section: type[Section] = RunConfig, prefix: str = ""
) -> Iterator[tuple[str, type[Section]]]:
    """`section` and all sections in it, with the dots and names before their settings."""
    yield prefix, section
    for name, field in section.model_fields.items():
        if inner := section_of(field.annotation):
            yield from sections(inner, f"{prefix}{name}.")


def settings_of(section: type[Section]) -> Iterator[tuple[str, FieldInfo]]:
    """Name and field of every setting of a section that is not a section itself."""
    for name, field in section.model_fields.items():
        if section_of(field.annotation) is None:
            yield name, field


def default_text(field: FieldInfo) -> str:
    """`required`, or the default as it is written in YAML."""
    if field.is_required():
        return "required"
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"default {json.dumps(default)}"


def type_text(annotation: Any, limits: Sequence[Any] = ()) -> str:
    """A type and its range as a person writes them: `integer > 0 | null`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(inner[0], [*inner[1:], *limits])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " | ".join("null" if one is type(None) else type_text(one) for one in inner)
    if origin is tuple:
        shown = [type_text(one) for one in inner if one is not Ellipsis]
        return f"[{', '.join(shown)}{', …' * (Ellipsis in inner)}]"
    if origin is dict or annotation is dict:
        return "mapping"
    return NAMES[annotation] + "".join(_range_text(limits))


def _range_text(limits: Sequence[Any]) -> Iterator[str]:
    for limit in limits:
        if isinstance(limit, FieldInfo):
            yield from _range_text(limit.metadata)
        for name, sign in SIGNS.items():
            if hasattr(limit, name):
                yield f" {sign} {getattr(limit, name):g}"
