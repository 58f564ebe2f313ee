"""What is compared: the rows of Table 4 and Table 5, and what each of their runs starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loopanimate_core.errors import LoopAnimateError

NEW_NETWORK = "1"  # the stage in which a new network learns


@dataclass(frozen=True)
class Scale:
    """How large an ablation is.

    Attributes:
        steps: of every run.
        drawn_clips: of a data set that draws its clips.
        new: settings of new networks, beside the recipe's.
        stage3: settings of runs that continue one, likewise.
        pictures: animated with every row; None for all.
        sampling_steps: of every loop; None for the model's.
    """

    steps: int
    drawn_clips: int
    new: Mapping[str, object] = field(default_factory=dict)
    stage3: Mapping[str, object] = field(default_factory=dict)
    pictures: int | None = None
    sampling_steps: int | None = None


_SMALL = {"clip.height_px": 64, "clip.width_px": 64, "validation.loss_clips": 64}
SCALES = {
    "mini": Scale(steps=1000, drawn_clips=2400),
    # A table in about an hour of one core: 7 and 9 frames of 64 pixels, 0.35 and 0.44 CPU s a step without the optimiser.
    "small": Scale(
        steps=400,
        drawn_clips=1200,
        new={"clip.f": 4, **_SMALL},
        stage3={"clip.f": 5, **_SMALL},
        pictures=4,
        sampling_steps=8,
    ),
}


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
