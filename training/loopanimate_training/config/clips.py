"""The settings of clips: how they are drawn, where they come from, how many make a step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture import SIZE_MULTIPLE_PX
from loopanimate_core.picture.shapes import Shape, check_shapes

from .. import alss
from .base import MAY_CHANGE, DataPath, MaybeDataPath, Section, ShareBelowOne

SAMPLES_TO_SHARE = 1000  # samples after which a mix has kept its weights

# `leave_out` is the former name of `skip`.
Uncaptioned = Annotated[
    Literal["skip", "keep"],
    BeforeValidator(lambda value: "skip" if value == "leave_out" else value),
]


class ClipConfig(Section):
    """How source frames become a training clip (Eq. 3, 4, 10)."""

    f: Annotated[int, Field(ge=2)] = Field(
        description="Frames from the first to the turning frame; the clip has 2f-1 frames."
    )
    stride: PositiveInt = Field(
        default=alss.STRIDE,
        description="Source frames between two frames of the forward half: s in Eq. 3.",
    )
    reverse_steps: tuple[PositiveInt, ...] = Field(
        default=alss.STEPS,
        description="Steps, in source frames, that the backward half may take (Eq. 4).",
    )
    loops: bool = Field(
        default=False,
        description="Every clip of the data set is one round of a natural loop: its 2f-2 frames are spread over all of it,"
        " and time is not mirrored; `stride` and `reverse_steps` do not matter.",
    )
    strict: bool = Field(
        default=False,
        description="Exclude backward paths on which an inner frame repeats its mirror image of the forward half.",
    )
    mask: Literal["ones", "object"] = Field(
        default="object",
        description="Mask channel Z_M: ones everywhere as in stage 1, or the object (Eq. 10).",
    )
    height_px: PositiveInt = Field(
        default=512, description="Height of a training clip; divisible by 8."
    )
    width_px: PositiveInt = Field(
        default=512, description="Width of a training clip; divisible by 8."
    )
    shapes: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(
        default=(),
        description="Train at several sizes [width, height] of about equal area, width_px x height_px among them; each clip at the nearest aspect ratio.",
    )
    starts_per_clip: PositiveInt | None = Field(
        default=8,
        description="Number of start frames that clips are drawn from, for each source video; null for all, which"
        " leaves a cache little to find again.",
    )
    fps: PositiveFloat | None = Field(
        default=None,
        description="Resample videos to this rate, by the nearest frame in time; null uses every source frame.",
    )

    @property
    def frames(self) -> int:
        """F = 2f-1, the frames that the network sees."""
        return 2 * self.f - 1

    @property
    def span_frames(self) -> int:
        """Source frames that one clip covers; of a natural loop, how many are needed."""
        return 2 * self.f - 2 if self.loops else alss.span(self.f, self.stride)

    @property
    def turn(self) -> int:
        """Number of the turning frame, counted like the frames of `draw_loop` (`data/loops.py`)."""
        return self.f - 1 if self.loops else self.span_frames - 1

    @property
    def size(self) -> Shape:
        """Width and height of a clip when there are no `shapes`."""
        return Shape(self.width_px, self.height_px)

    @property
    def all_shapes(self) -> tuple[Shape, ...]:
        """Every size that clips of the run have."""
        return tuple(Shape(*shape) for shape in self.shapes) or (self.size,)

    @property
    def largest_shape(self) -> Shape:
        """The size whose clips need the most memory."""
        return max(self.all_shapes, key=math.prod)

    @model_validator(mode="after")
    def _has_paths(self) -> ClipConfig:
        paths = alss.count_paths(self.f, self.stride, self.reverse_steps, self.strict)
        if paths == 0 and not self.loops:
            raise ValueError(
                f"no {self.f - 1} steps out of {self.reverse_steps} add up to {self.span_frames - 1} source frames"
            )
        if self.height_px % SIZE_MULTIPLE_PX or self.width_px % SIZE_MULTIPLE_PX:
            raise ValueError(
                f"{self.width_px} x {self.height_px} px: both must be multiples of {SIZE_MULTIPLE_PX}"
            )
        try:
            check_shapes(self.shapes, self.size)
        except LoopAnimateError as error:
            raise ValueError(str(error)) from error
        return self


class DataSet(Section):
    """One data set.

    `videos`: a folder of videos with captions in .txt or .json beside them, a table (.csv, .tsv, .jsonl,
    .parquet) with WebVid's, Panda-70M's, OpenVid-1M's or its own columns, or webdataset tars. `frames`: a
    folder of folders of pictures. `mini`: procedural stickers; `path` is the sticker cache.
    """

    source: Literal["videos", "frames", "mini"] = Field(
        default="videos", description="Kind of data in `path`."
    )
    path: DataPath = Field(
        description="Folder, table or tar that holds the clips; also a URL that fsspec reads, such as s3://bucket/clips."
    )
    weight: Annotated[float, Field(ge=0.001, le=1000)] = Field(
        default=1.0,
        description="How often clips of this data set are shown, against the weights of the others in `data.mix`.",
    )
    root: MaybeDataPath = Field(
        default=None,
        description="Folder that relative paths in a table start from; null for the table's folder.",
    )
    outside: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="What to do with paths in a table that point outside that folder.",
    )
    columns: dict[str, str] = Field(
        default={}, description="Names of a table's columns by meaning: path, caption, and so on."
    )
    masks: MaybeDataPath = Field(
        default=None,
        description="Folder of object masks, named by clip id; null for masks beside the clips.",
    )
    uncaptioned: Uncaptioned = Field(
        default="skip", description="Skip clips without a caption, or keep them."
    )
    clips: PositiveInt | None = Field(
        default=None,
        description="Use only the first so many clips; required for `mini`, which is endless.",
    )


class DataConfig(DataSet):
    """Where clips come from: one data set, or several that are mixed by weight."""

    source: Literal["videos", "frames", "mini"] = Field(description="Kind of data in `path`.")
    mix: tuple[DataSet, ...] = Field(
        default=(),
        description="More data sets, each with a `path` and a `weight`, and any of the settings above.",
    )
    saliency: Literal["grabcut"] | Path | None = Field(
        default=None,
        description="What finds the object in clips without masks (Eq. 9): an ONNX network, `grabcut` for no network,"
        " or null for the network in the package.",
        json_schema_extra=MAY_CHANGE,  # a hash of the network is kept instead (`run/origin.py`)
    )
    held_out_share: ShareBelowOne = Field(
        default=0.0, description="Share of the videos kept for validation and never trained on."
    )
    cache: Path | None = Field(
        default=None,
        description="Folder that keeps encoded clips and captions; filled on first use. null for no cache.",
        json_schema_extra=MAY_CHANGE,
    )
    index: Path | None = Field(
        default=None,
        description="Folder of the clip index; null for the cache folder, or the user's cache folder.",
        json_schema_extra=MAY_CHANGE,
    )
    threads: PositiveInt = Field(
        default=1, description="Threads that prepare clips.", json_schema_extra=MAY_CHANGE
    )
    prefetch: PositiveInt = Field(
        default=4,
        description="Steps whose batches are prepared ahead.",
        json_schema_extra=MAY_CHANGE,
    )
    max_bad_share: ShareBelowOne = Field(
        default=0.05,
        description="The run stops when more than this share of the clips cannot be read.",
        json_schema_extra=MAY_CHANGE,
    )

    @property
    def sets(self) -> tuple[DataConfig, ...]:
        """Every data set as if it were the only one."""
        alone = self.model_copy(update={"mix": ()})
        return alone, *(alone.model_copy(update=dict(one)) for one in self.mix)

    @property
    def shares(self) -> tuple[int, ...]:
        """How many of `sum(shares)` samples in a row are from each of `sets`: exactly by weight where that can be
        done in at most 1,000 samples, else rounded to a thousandth."""
        weights = [one.weight for one in self.sets]
        for count in range(1, SAMPLES_TO_SHARE + 1):
            exact = [count * weight / sum(weights) for weight in weights]
            if all(abs(share - round(share)) < 1e-6 for share in exact):
                return tuple(map(round, exact))
        return tuple(max(1, round(SAMPLES_TO_SHARE * w / sum(weights))) for w in weights)


class BatchConfig(Section):
    """Clips per optimiser step: size × accumulate, over all processes together."""

    size: PositiveInt = Field(
        default=1,
        description="Clips per forward pass, over all processes; must be divisible by their number.",
        json_schema_extra=MAY_CHANGE,
    )
    accumulate: PositiveInt = Field(
        default=1,
        description="Forward passes whose gradients are accumulated for one optimiser step.",
        json_schema_extra=MAY_CHANGE,
    )

    @property
    def clips(self) -> int:
        """Clips per optimiser step; this must stay the same when a run resumes."""
        return self.size * self.accumulate
