"""The three stages of the paper (Sec. 3.5 and 4) and the runs of its ablations: two tables, a row each.

A stage is a set of defaults for `RunConfig`, a variant is laid over it; a configuration file or `--set` may
replace any of them. `--stage 3-qk` names stage 3 with the variant `qk`.
"""

from __future__ import annotations

from typing import Any

from loopanimate_core.errors import LoopAnimateError

# stage: trained parts, forward frames f (2f-1 are trained on), learning rate, steps, Z_M (Eq. 10)
_COLUMNS = ("parts", "f", "lr", "steps", "mask")
_TABLE: dict[int, tuple[tuple[str, ...], int, float, int, str]] = {
    1: (("conv_in", "cab", "temm"), 8, 2e-4, 200_000, "ones"),
    2: (("conv_in", "temm"), 11, 6e-5, 100_000, "object"),
    3: (("conv_in", "temm.q", "temm.v"), 18, 2e-5, 100_000, "object"),
}
STAGES = tuple(_TABLE)

# variant: the stages it derives from, what differs, and where it comes from
_VARIANTS: dict[str, tuple[tuple[int, ...], dict[str, Any], str]] = {
    "q": ((3,), {"model": {"train": ("conv_in", "temm.q")}}, "Table 5, row Q"),
    "qk": ((3,), {"model": {"train": ("conv_in", "temm.q", "temm.k")}}, "Table 5, row QK"),
    "qv": ((3,), {"model": {"train": ("conv_in", "temm.q", "temm.v")}}, "Table 5, row QV: stage 3"),
    "qkv": (
        (3,),
        {"model": {"train": ("conv_in", "temm.q", "temm.k", "temm.v")}},
        "Table 5, row QKV",
    ),
    "routing0": (STAGES, {"model": {"routing": ("image", "text", "text")}}, "Table 4, row 0"),
    "routing1": (STAGES, {"model": {"routing": ("image", "none", "text")}}, "Table 4, row 1"),
    "routing2": (STAGES, {"model": {"routing": ("text", "text", "text")}}, "Table 4, row 2"),
    "routing3": (STAGES, {"model": {"routing": ("image", "image", "image")}}, "Table 4, row 3"),
    "routing4": (STAGES, {"model": {"routing": ("text", "text", "image")}}, "Table 4, row 4"),
    "lora": (
        STAGES,
        {
            "model": {"train": (), "lora": {"rank": 16, "alpha": 16.0, "targets": ("temm", "cab")}},
            "optimizer": {"lr": 1e-4},
        },
        "adapters alone",
    ),
}
RUNS = (
    *map(str, STAGES),
    *(f"{stage}-{name}" for stage in STAGES for name, row in _VARIANTS.items() if stage in row[0]),
)


def parse_run_name(name: int | str) -> tuple[int, str]:
    """`3`, `"3-qk"` or `"stage3-qk"` as stage and variant ("" for the stage itself).

    Raises:
        LoopAnimateError: there is no such row.
    """
    text = str(name).removeprefix("stage")
    if text not in RUNS:
        raise LoopAnimateError(f"stage is {name}; choose one of {', '.join(RUNS)}")
    stage, _, variant = text.partition("-")
    return int(stage), variant


def stage_defaults(stage: int, variant: str = "") -> dict[str, Any]:
    """The row of `stage`, with its variant's laid over it, as nested values for `RunConfig`."""
    row = dict(zip(_COLUMNS, _TABLE[stage], strict=True))
    values: dict[str, Any] = {
        "stage": stage,
        "variant": variant,
        "steps": row["steps"],
        "model": {"train": row["parts"]},
        "clip": {"f": row["f"], "mask": row["mask"]},
        "optimizer": {"lr": row["lr"]},
    }
    for section, settings in _VARIANTS[variant][1].items() if variant else ():
        values[section] = {**values[section], **settings}
    return values


def table_rows() -> list[str]:
    """Both tables as lines of text, for `--help`."""
    lines = [f"{'run':<12}{'frames':>7}{'rate':>9}{'steps':>10}  trains"]
    for stage, (parts, f, lr, steps, _) in _TABLE.items():
        lines.append(f"{stage:<12}{2 * f - 1:>7}{lr:>9g}{steps:>10,}  {', '.join(parts)}")
    for name, (stages, _, source) in _VARIANTS.items():
        lines.append(f"{'/'.join(map(str, stages)) + '-' + name:<38}  {source}")
    return lines
