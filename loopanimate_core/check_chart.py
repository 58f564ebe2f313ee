"""The former place of `check.chart`, kept for scripts that import `seam_chart` from here."""

from .check.chart import seam_chart

__all__ = ["seam_chart"]
