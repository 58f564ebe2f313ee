"""The three stages of the paper (Sec. 3.5 and 4): one table, a row each.

A stage is a set of defaults for `RunConfig`; a configuration file or `--set` may replace any of them.
"""

from __future__ import annotations

from typing import Any

# stage: trained parts, forward frames f (2f-1 are trained on), learning rate, steps, Z_M (Eq. 10)
_COLUMNS = ("parts", "f", "lr", "steps", "mask")
_TABLE: dict[int, tuple[tuple[str, ...], int, float, int, str]] = {
    1: (("conv_in", "cab", "temm"), 8, 2e-4, 200_000, "ones"),
    2: (("conv_in", "temm"), 11, 6e-5, 100_000, "object"),
    3: (("conv_in", "temm.q", "temm.v"), 18, 2e-5, 100_000, "object"),
}
STAGES = tuple(_TABLE)


def stage_defaults(stage: int) -> dict[str, Any]:
    """The row of `stage` as nested values for `RunConfig`."""
    row = dict(zip(_COLUMNS, _TABLE[stage], strict=True))
    return {
        "stage": stage,
        "steps": row["steps"],
        "model": {"train": row["parts"]},
        "clip": {"f": row["f"], "mask": row["mask"]},
        "optimizer": {"lr": row["lr"]},
    }
