"""What every section of the settings is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..remote import data_path

Share = Annotated[float, Field(ge=0.0, le=1.0)]
ShareBelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
DataPath = Annotated[Path, AfterValidator(data_path)]  # may be a URL
MaybeDataPath = Annotated[Path | None, AfterValidator(lambda path: path and data_path(path))]

# Marks a setting that may differ when a run resumes: it decides neither the data nor, except for the order of
# additions, the gradients. Every other setting must stay the same (`same_run.py`).
MAY_CHANGE: dict[str, Any] = {"may_change": True}


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
