"""The three stages of the paper (Sec. 3.5 and 4), distillation, and the variants of the ablations: tables, a row each.

A stage is a set of defaults for `RunConfig`, and a variant replaces some of them; a configuration file or
`--set` may replace any. `--stage 3-qk` is stage 3 with the variant `qk`.
"""

from __future__ import annotations

from typing import Any

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models.parts import STAGE_PARTS

# stage: forward frames f (clips have 2f-1), learning rate, steps, mask channel Z_M (Eq. 10)
_TABLE: dict[int, tuple[int, float, int, str]] = {
    1: (8, 2e-4, 200_000, "ones"),
    2: (11, 6e-5, 100_000, "object"),
    3: (18, 2e-5, 100_000, "object"),
    4: (18, 1e-4, 10_000, "object"),
}
STAGES = tuple(STAGE_PARTS)  # of the paper
DISTIL = 4  # consistency distillation, after any of them


def _trains(*parts: str) -> dict[str, Any]:
    return {"model": {"train": parts}}


def _reads(down: str, middle: str, up: str) -> dict[str, Any]:
    return {"model": {"routing": (down, middle, up)}}


_ADAPTERS = {"rank": 16, "alpha": 16.0, "targets": ("temm", "cab")}
# What stage 4 has besides its row: adapters alone train (Luo et al. 2023b), and clips have the conditions of sampling.
_DISTIL: dict[str, Any] = {
    "model": {"train": (), "lora": {**_ADAPTERS, "rank": 32, "alpha": 32.0}},
    "loss": {"drop_turn": 1.0, "drop_text": 0.0, "drop_image": 0.0},
    "distil": {},
    "optimizer": {"ema_decay": 0.95},
    "validation": {"steps": 4, "guidance": 1.0},
}
# variant: the stages it is for, the settings it replaces, and where it comes from
_VARIANTS: dict[str, tuple[tuple[int, ...], dict[str, Any], str]] = {
    "q": ((3,), _trains("conv_in", "temm.q"), "Table 5, row Q"),
    "qk": ((3,), _trains("conv_in", "temm.q", "temm.k"), "Table 5, row QK"),
    "qv": ((3,), _trains("conv_in", "temm.q", "temm.v"), "Table 5, row QV: stage 3"),
    "qkv": ((3,), _trains("conv_in", "temm.q", "temm.k", "temm.v"), "Table 5, row QKV"),
    "routing0": (STAGES, _reads("image", "text", "text"), "Table 4, row 0"),
    "routing1": (STAGES, _reads("image", "none", "text"), "Table 4, row 1"),
    "routing2": (STAGES, _reads("text", "text", "text"), "Table 4, row 2"),
    "routing3": (STAGES, _reads("image", "image", "image"), "Table 4, row 3"),
    "routing4": (STAGES, _reads("text", "text", "image"), "Table 4, row 4"),
    "lora": (
        STAGES,
        {"model": {"train": (), "lora": _ADAPTERS}, "optimizer": {"lr": 1e-4}},
        "adapters only",
    ),
    "full": ((DISTIL,), {"model": {"train": ("all",), "lora": None}}, "all weights, no adapters"),
}
RUNS = (
    *map(str, _TABLE),
    *(f"{stage}-{name}" for stage in _TABLE for name, row in _VARIANTS.items() if stage in row[0]),
)


def parse_run_name(name: int | str) -> tuple[int, str]:
    """Stage and variant ("" for none) in a name such as `3`, `"3-qk"` or `"stage3-qk"`; `4-distil` is 4.

    Raises:
        LoopAnimateError: the tables have no such row.
    """
    text = str(name).removeprefix("stage")
    if text == f"{DISTIL}-distil":
        return DISTIL, ""
    if text not in RUNS:
        raise LoopAnimateError(f"stage is {name}; choose one of {', '.join(RUNS)}")
    stage, _, variant = text.partition("-")
    return int(stage), variant


def stage_defaults(stage: int, variant: str = "") -> dict[str, Any]:
    """The row of `stage`, with the variant's settings, as nested values for `RunConfig`."""
    f, lr, steps, mask = _TABLE[stage]
    values: dict[str, Any] = {
        "stage": stage,
        "variant": variant,
        "steps": steps,
        "model": {"train": STAGE_PARTS.get(stage, ())},
        "clip": {"f": f, "mask": mask},
        "optimizer": {"lr": lr},
    }
    for section, settings in _DISTIL.items() if stage == DISTIL else ():
        values[section] = {**values.get(section, {}), **settings}
    for section, settings in _VARIANTS[variant][1].items() if variant else ():
        values[section] = {**values[section], **settings}
    return values


def table_rows() -> list[str]:
    """Both tables as lines of text, for `--help`."""
    lines = [f"{'run':<12}{'frames':>7}{'rate':>9}{'steps':>10}  trains"]
    for stage, (f, lr, steps, _) in _TABLE.items():
        parts = ", ".join(STAGE_PARTS.get(stage, ("adapters, by consistency distillation",)))
        lines.append(f"{stage:<12}{2 * f - 1:>7}{lr:>9g}{steps:>10,}  {parts}")
    for name, (stages, _, source) in _VARIANTS.items():
        lines.append(f"{'/'.join(map(str, stages)) + '-' + name:<38}  {source}")
    return lines
