"""What is compared: the rows of Table 4 and Table 5, and what each of their runs starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loopanimate_core.errors import LoopAnimateError

NEW_NETWORK = "1"  # the stage in which a new network learns


@dataclass(frozen=True)
class Ablation:
    """One table.

    Attributes:
        rows: the stage (a name for `--stage`) of each row, by the row's label.
        paper: the label of the row that the paper chose.
        fresh: whether each row trains a new network. If not, all rows continue one that `NEW_NETWORK` has trained.
    """

    title: str
    rows: Mapping[str, str]
    paper: str
    fresh: bool

    @property
    def recipe(self) -> str:
        """The recipe of the rows' runs."""
        return "ablation_new.yaml" if self.fresh else "ablation_stage3.yaml"


ABLATIONS = {
    "routing": Ablation(
        "Table 4: what cross-attention reads in the down, middle and up blocks",
        {
            "0: image, text, text": "1-routing0",
            "1: image, nothing, text": "1-routing1",
            "2: text, text, text": "1-routing2",
            "3: image, image, image": "1-routing3",
            "4: text, text, image": "1-routing4",
        },
        paper="0: image, text, text",
        fresh=True,
    ),
    "projections": Ablation(
        "Table 5: which projections of temporal attention train in stage 3",
        {"Q": "3-q", "QK": "3-qk", "QV": "3-qv", "QKV": "3-qkv"},
        paper="QV",
        fresh=False,
    ),
}


def ablation_named(name: str) -> Ablation:
    """A table by its name.

    Raises:
        LoopAnimateError: there is none.
    """
    if name not in ABLATIONS:
        raise LoopAnimateError(f"an ablation must be one of {', '.join(ABLATIONS)}, got {name!r}")
    return ABLATIONS[name]
