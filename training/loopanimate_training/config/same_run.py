"""Which settings must stay the same when a run resumes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from loopanimate_core.errors import LoopAnimateError

from ..remote import RemotePath
from .base import MAY_CHANGE, Section
from .resolve import parse
from .sections import RunConfig


def require_same_run(old: Mapping[str, Any], config: RunConfig) -> None:
    """Check that `config` continues the run whose checkpoint holds the settings `old`.

    Raises:
        LoopAnimateError: names the first setting that must not differ and does.
    """
    before, now = (_fixed_settings(run) for run in (parse(old), config))
    for name in sorted(set(before) | set(now)):  # `model.unet` may have other sizes
        if before.get(name) != now.get(name):
            raise LoopAnimateError(
                f"{config.out} holds a run with {name} = {before.get(name)}, not {now.get(name)}; restore the "
                "setting, choose another `out`, or pass --allow-change"
            )


def _fixed_settings(run: RunConfig) -> dict[str, Any]:
    """The settings that must stay the same, by dotted name."""
    free = tuple(changeable_settings())
    values = flat_settings(run.model_dump(mode="json"))
    for name, value in flat_settings(run.model_dump()).items():
        if isinstance(value, Path) and not isinstance(
            value, RemotePath
        ):  # the same folder, however it is written
            values[name] = os.path.realpath(value)
    fixed = {
        name: value
        for name, value in values.items()
        if not any(name == one or name.startswith(f"{one}.") for one in free)
    }
    if run.optimizer.schedule != "constant":  # its rates depend on the number of steps
        fixed["steps"] = run.steps
    fixed["batch.size × batch.accumulate"] = run.batch.clips
    return fixed


def changeable_settings(section: type[Section] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Dotted names of the settings, and of whole sections, that may differ when a run resumes."""
    for name, field in section.model_fields.items():
        if field.json_schema_extra == MAY_CHANGE:
            yield prefix + name
        elif inner := section_of(field.annotation):
            yield from changeable_settings(inner, f"{prefix}{name}.")


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds (`LoraConfig` for `LoraConfig | None`, or for a list of them), or None."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, Section):
            return one
    return None


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; the sections of a list have their number in it (`data.mix.0.path`)."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = _inner(value)
        flat.update(
            {prefix + name: value} if inner is None else flat_settings(inner, f"{prefix}{name}.")
        )
    return flat


def _inner(value: Any) -> Mapping[str, Any] | None:
    """What is nested in a value; None if nothing is."""
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        return {str(number): one for number, one in enumerate(value)}
    return value if isinstance(value, Mapping) else None
