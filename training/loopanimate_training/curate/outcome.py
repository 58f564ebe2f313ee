"""What became of a clip in a worker, as a line of the journal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .measure import Scores, Window

FAILED, QUARANTINED = "failed", "quarantined"


@dataclass(frozen=True)
class Outcome:
    """Scores, or why there are none.

    Attributes:
        status: `failed` (the clip cannot be read), `quarantined` (it kills or blocks a worker); empty with scores.
        reason: in a few words that are the same for all such clips.
        detail: a sentence about this one.
    """

    scores: Scores | None = None
    status: str = ""
    reason: str = ""
    detail: str = ""

    def to_values(self) -> dict[str, Any]:
        """Values for JSON."""
        if self.scores is not None:
            return {"scores": dataclasses.asdict(self.scores)}
        return {"status": self.status, "reason": self.reason, "detail": self.detail}

    @staticmethod
    def from_values(values: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_values` describes.

        Raises:
            KeyError, TypeError, ValueError: it describes none.
        """
        if "scores" not in values:
            return Outcome(None, values["status"], values["reason"], values["detail"])
        return Outcome(_scores(values["scores"]))


def _scores(values: Mapping[str, Any]) -> Scores:
    changes = tuple((int(n), float(change)) for n, change in values["changes"])
    windows = tuple(Window(**{**w, "scores": _scores(w["scores"])}) for w in values["windows"])
    return Scores(**{**values, "changes": changes, "windows": windows})
