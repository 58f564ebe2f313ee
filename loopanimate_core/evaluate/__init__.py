"""Evaluation: pictures × systems → the paper's tables, a page of loops side by side, and a blind study.

docs/evaluation.md explains the command, `loopanimate evaluate`, and every column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .cases import Case, read_cases
    from .collect import collect_answers
    from .figures import FIGURES
    from .page import write_page
    from .runner import Row, evaluate
    from .study import write_study
    from .systems import Baseline, BundleSystem, FolderSystem
    from .table import summarise, write_tables

_HOMES = {
    "FIGURES": "figures",
    "Baseline": "systems",
    "BundleSystem": "systems",
    "Case": "cases",
    "FolderSystem": "systems",
    "Row": "runner",
    "collect_answers": "collect",
    "evaluate": "runner",
    "read_cases": "cases",
    "summarise": "table",
    "write_page": "page",
    "write_study": "study",
    "write_tables": "table",
}

__all__ = [
    "FIGURES",
    "Baseline",
    "BundleSystem",
    "Case",
    "FolderSystem",
    "Row",
    "collect_answers",
    "evaluate",
    "read_cases",
    "summarise",
    "write_page",
    "write_study",
    "write_tables",
]

__getattr__ = lazy_names(__name__, _HOMES)
