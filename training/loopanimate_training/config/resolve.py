"""Settings from the stage's row, a YAML file and `--set`, merged and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from loopanimate_core.errors import LoopAnimateError

from ..stages import parse_run_name, stage_defaults
from .base import Section
from .sections import RunConfig

AnySection = TypeVar("AnySection", bound=Section)

OLD_NAMES = {"sheets": "validation"}  # of sections; checkpoints and YAML files may still have them


def resolve(
    stage: int | str,
    file: Path | None = None,
    overrides: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The row of a stage (`3`, or `"3-qk"` with a variant), then the YAML `file`, then `key.key=value` strings.

    Args:
        defaults: values below the row, for settings that no row has.

    Raises:
        LoopAnimateError: an unknown stage or setting, an illegal value, an unreadable file, or a file that
            belongs to another stage.
    """
    row = stage_defaults(*parse_run_name(stage))
    values = merge(defaults or {}, row)
    if file is not None:
        values = merge(values, read_yaml(file))
    for override in overrides:
        values = merge(values, parse_override(override))
    for name in ("stage", "variant"):  # these two chose the row
        if str(values[name]) != str(row[name]):
            raise LoopAnimateError(
                f"the settings have {name} = {values[name]!r}, but --stage {stage} means {row[name]!r}; remove one of "
                "them or make them equal"
            )
    return parse(values)


def stage_in(file: Path) -> str | None:
    """The stage in a settings file, with its variant; None when the file names none.

    Raises:
        LoopAnimateError: the file cannot be read.
    """
    values = read_yaml(file)
    if "stage" not in values:
        return None
    variant = values.get("variant") or ""
    return f"{values['stage']}{'-' * bool(variant)}{variant}"


def parse(values: Mapping[str, Any]) -> RunConfig:
    """Check nested values, from a file or a checkpoint.

    Raises:
        LoopAnimateError: one sentence about the first mistake.
    """
    return parse_as(RunConfig, with_current_names(values))


def parse_as(section: type[AnySection], values: Mapping[str, Any]) -> AnySection:
    """Check nested values against a section, as `parse` does for a run."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "run"
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "there is no such setting (--help-config lists all)"
        elif isinstance(first["input"], str | int | float | None):
            message += f", not {first['input']!r}"
        raise LoopAnimateError(f"configuration: {where}: {message}") from error


def with_current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with the sections of earlier versions renamed."""
    current = {name: value for name, value in values.items() if name not in OLD_NAMES}
    for old, new in OLD_NAMES.items():
        if old in values:
            current = merge({new: values[old]}, current)
    return current


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings merged key by key; any other value in `top` replaces the one in `base`."""
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = merge(old, value)
        merged[key] = value
    return merged


def read_yaml(file: Path) -> dict[str, Any]:
    """The settings in a YAML file, nested.

    Raises:
        LoopAnimateError: it cannot be read, or does not hold settings.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise LoopAnimateError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise LoopAnimateError(
            f"{file} is not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}); save it as UTF-8"
        ) from error
    values = _load_yaml(text, str(file))
    if not isinstance(values, dict):
        raise LoopAnimateError(f"{file} must hold settings as `name: value`")
    return with_current_names(values)


def parse_override(text: str) -> dict[str, Any]:
    """`section.name=value` as nested settings; the value is read as YAML.

    Raises:
        LoopAnimateError: it looks otherwise.
    """
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise LoopAnimateError(f"--set {text!r} must look like section.name=value")
    parsed = _load_yaml(value, f"--set {text!r}")
    for key in reversed(path.split(".")):
        parsed = {key: parsed}
    return with_current_names(parsed)


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where 1e-5 is a string because it has no point; here it is a number, as in 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _load_yaml(text: str, what: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise LoopAnimateError(
            f"{what} is not valid YAML: {' '.join(str(error).split())}"
        ) from error
