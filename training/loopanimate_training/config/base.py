"""What every section of the settings is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
ShareBelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]

# Marks a setting that may differ when a run resumes: it decides neither the data nor, except for the order of
# additions, the gradients. Every other setting must stay the same (`same_run.py`).
MAY_CHANGE: dict[str, Any] = {"may_change": True}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
